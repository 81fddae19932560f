"""Rewrite rules for TensorRT's parsers: equal numbers before and after, an engine only after.

Each model is written by hand. Its numbers are computed by numpy or PyTorch, before and after by
ONNX Runtime. Where TensorRT-RTX is installed, its parser refuses the model before in the words that
the rule answers, and its builder makes an engine of the one after; it cannot run here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from rewrite_examples import (
    BITWISE,
    EXAMPLES,
    FILL,
    LAYER_NORM,
    SCATTER,
    WHOLE,
    Arrays,
    Example,
    Not,
    ScatterElements,
    onnx_model,
)
from tiny import call_of

import portrt
from portrt.compiler.backends import registry
from portrt.compiler.backends.tensorrt.process import Built, ParserRefusal, build_in_process
from portrt.compiler.backends.tensorrt.rewrites import rewritten, rules
from portrt.compiler.convert import OnnxModel

RTX = registry.builder("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))


def run(model: OnnxModel, inputs: Arrays) -> list[Any]:
    session = onnxruntime.InferenceSession(model.data)
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def build_with_rtx(model: OnnxModel, shapes: Mapping[str, Sequence[int]]) -> Built:
    job = {
        "module": "tensorrt_rtx",
        "profiles": [{name: [list(shape)] * 3 for name, shape in shapes.items()}],
        "optimization_level": None,
        "workspace_size": 0,
        "version_compatible": False,
        "hardware_compatible": False,
        "compute_capabilities": [],
        "strip_weights": [],
    }
    return build_in_process(job, model.data, None, what="a test", python=None, timeout_s=600)


each = pytest.mark.parametrize("case", EXAMPLES, ids=lambda c: f"{c.rule.__name__}-{c.name}")


@each
def test_before_and_after_give_the_same_numbers(case: Example) -> None:
    model = case.model()
    changed = rewritten(model, "tensorrt_rtx", case.shapes())
    wanted = case.wanted(*case.inputs)
    wanted = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]

    assert changed is not model
    onnx.checker.check_model(onnx.load_from_string(changed.data), full_check=True)
    for found in (run(model, case.inputs), run(changed, case.inputs)):
        for got, want in zip(found, wanted, strict=True):
            assert got.dtype == want.dtype
            if want.dtype == np.float32:
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(got, want)


# One of each rule that is built, and refused before.
BUILT = list({case.rule: case for case in [*EXAMPLES, *BITWISE[1::3]]}.values())


@needs_tensorrt_rtx
@pytest.mark.parametrize("case", BUILT, ids=lambda c: c.rule.__name__)
def test_the_parser_refuses_the_model_before_in_these_words_and_takes_the_one_after(
    case: Example,
) -> None:
    with pytest.raises(ParserRefusal) as caught:
        build_with_rtx(case.model(), case.shapes())
    assert case.rule.refusal in caught.value.happened

    changed = rewritten(case.model(), "tensorrt_rtx", case.shapes())
    assert build_with_rtx(changed, case.shapes()).data


def test_every_rule_has_an_example() -> None:
    assert {case.rule for case in EXAMPLES} == set(rules())


@pytest.mark.parametrize(
    "case",
    [*BITWISE[1::3], *SCATTER[:1], *SCATTER[-1:], FILL, WHOLE[0]],
    ids=lambda c: c.rule.__name__,
)
def test_a_result_that_would_be_large_is_not_rewritten(case: Example) -> None:
    model, shapes = case.model(), case.shapes()
    large = {name: [1 << 22, *shape[1:]] for name, shape in shapes.items()}

    assert (rewritten(model, "tensorrt_rtx", large) is model) == (case.rule is not Not)


def test_sizes_that_are_sums_and_products_are_bounded() -> None:
    rule = ScatterElements({"s": 5, "t": 3})

    assert rule.bounds(["2*s", 4, "s", "s*t + 1"]) == [10, 4, 5, 16]
    for unknown in ("s - 1", "u", "s**2", "(s + 1)*2", "s//2", "-s"):
        assert rule.bounds([unknown]) is None


def test_old_opsets_are_left_alone() -> None:
    model = dataclasses.replace(LAYER_NORM[0].model(17), opset=17)

    assert rewritten(model, "tensorrt", LAYER_NORM[0].shapes()) is model


def test_what_a_plugin_of_tensorrt_does_is_left_to_it() -> None:
    model, shapes = SCATTER[0].model(), SCATTER[0].shapes()

    assert rewritten(model, "tensorrt", shapes) is model
    assert rewritten(model, "tensorrt_rtx", shapes) is not model


def test_plain_nodes_are_left_alone() -> None:
    text = """g (float[n,2,4,4] x, float[4] w) => (float[n,2,2,2] y, float[n,2,4,4] z) {
        y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
        z = LayerNormalization(x, w) }"""
    model = onnx_model(text)

    assert rewritten(model, "tensorrt_rtx", {"x": [3, 2, 4, 4], "w": [4]}) is model


class Both(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        values, places = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
        return values.tanh(), places


@needs_tensorrt_rtx
def test_onnxruntime_keeps_the_model_as_it_is() -> None:
    x = torch.randn(3, 2, 8, 8)
    program = portrt.compile(
        Both().eval(),
        inputs=[x],
        engines=("tensorrt_rtx", "onnxruntime"),
        require_engines=True,
        min_block_size=1,
        output_format="exported_program",
    )
    call = call_of(program)
    data = call.blobs[call.engine("onnxruntime")["data"]["blob"]]
    kept = onnx.load_from_string(data.numpy().tobytes())

    # Each is in both branches of a condition on NaN, in one of them beside that of a mask.
    branches = [item.g for node in kept.graph.node for item in node.attribute if item.HasField("g")]
    nodes = [node for graph in (kept.graph, *branches) for node in graph.node]
    pools = [node for node in nodes if node.op_type == "MaxPool" and len(node.output) == 2]
    assert len(pools) == 6
    assert call.engine("tensorrt_rtx")["build"]["onnx_nodes"] > len(kept.graph.node)
    for got, want in zip(program.module()(x), Both()(x), strict=True):
        torch.testing.assert_close(got, want)


def test_new_nodes_are_named_after_the_call_that_the_old_one_came_from() -> None:
    model = onnx.load_from_string(BITWISE[1].model().data)
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "torch_node", "bitwise_and_3"
    given = dataclasses.replace(BITWISE[1].model(), data=model.SerializeToString())
    changed = rewritten(given, "tensorrt_rtx", BITWISE[1].shapes())

    nodes = onnx.load_from_string(changed.data).graph.node
    assert all(node.name.startswith("node_bitwise_and_3.") for node in nodes)
    assert len({node.name for node in nodes}) == len(nodes)
    assert {entry.key for node in nodes for entry in node.metadata_props} == {"torch_node"}
