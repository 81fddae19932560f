"""convert: blocks as ONNX models, against eager PyTorch through ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from custom_ops import shifted_relu
from harness import Compiled, assert_same
from models import CASES, lambda_module, randn
from torch import nn
from torch.nn import functional

import portrt
from portrt import torch_internals
from portrt.compiler.backends.onnxruntime.rewrites.widen_bfloat16 import widen_bfloat16
from portrt.compiler.convert import (
    NEWEST_OPSET,
    WEIGHTS_LOCATION,
    OnnxModel,
    onnx_from_block,
    translation,
)
from portrt.compiler.convert.translations import with_built_in
from portrt.compiler.lower import lower
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.compiler.plan import Block, Plan
from portrt.errors import ConvertError
from portrt.graphs.node_names import nodes_named
from portrt.torch_internals import exporter
from portrt.weights import WeightsImage, image_from_tensors


def planned(model: nn.Module, args: tuple[Any, ...], dynamic_shapes: Any = None) -> Plan:
    program = torch.export.export(model, args, dynamic_shapes=dynamic_shapes)
    return partition(lower(program), Settings(min_block_size=1), translation)


def planned_case(name: str) -> tuple[Plan, Block]:
    case = CASES[name]
    args, _ = case.arguments()[0]
    plan = planned(case.model(), args, case.dynamic_shapes)
    (block,) = plan.blocks
    return plan, block


def converted(plan: Plan, block: Block, opset: int = NEWEST_OPSET) -> OnnxModel:
    image = WeightsImage(image_from_tensors(plan.tensors))
    return onnx_from_block(block, plan.tensors, image, opset)


def run(plan: Plan, model: OnnxModel, inputs: dict[str, torch.Tensor], data: bytes = b"") -> Any:
    """By ONNX Runtime, with the external weights given as they are."""
    options = onnxruntime.SessionOptions()
    values = [
        onnxruntime.OrtValue.ortvalue_from_numpy(plan.tensors[name].detach().contiguous().numpy())
        for name in model.weights
    ]
    options.add_external_initializers(list(model.weights), values)
    session = onnxruntime.InferenceSession(
        data or model.data, options, providers=["CPUExecutionProvider"]
    )
    taken = {item.name for item in session.get_inputs()}
    feeds = {name: value.numpy() for name, value in inputs.items() if name in taken}
    return tuple(torch.from_numpy(np.asarray(out)) for out in session.run(None, feeds))


@pytest.mark.parametrize("opset", [18, 20, 22, NEWEST_OPSET])
def test_a_model_is_right_at_every_opset(opset: int) -> None:
    plan, block = planned_case("transformer_layer")
    model = converted(plan, block, opset)
    case = CASES["transformer_layer"]

    assert model.opset == opset
    assert onnx.load_from_string(model.data).opset_import[0].version == opset
    for (x,), _ in case.arguments():
        with torch.no_grad():
            assert_same(run(plan, model, {"x": x}), (case.model()(x),), 1e-5, 1e-5)


def test_attention_is_one_node_at_the_newest_opset_only() -> None:
    plan, block = planned_case("transformer_layer")

    def operators(opset: int) -> set[str]:
        graph = onnx.load_from_string(converted(plan, block, opset).data).graph
        return {node.op_type for node in graph.node}

    assert "Attention" in operators(NEWEST_OPSET)
    assert "Attention" not in operators(22)


@pytest.mark.parametrize("opset", [18, 22, NEWEST_OPSET])
def test_every_name_leads_to_an_operator_of_the_block(opset: int) -> None:
    """Decomposing gives nodes new names, which may be those of other nodes of the block."""
    plan, block = planned_case("transformer_layer")
    model = converted(plan, block, opset)
    targets = {n.name: str(n.target) for n in block.program.graph.nodes if n.op == "call_function"}
    graph = onnx.load_from_string(model.data).graph
    kinds: dict[str, set[str]] = {}
    for node in graph.node:
        (name,) = nodes_named(node.name, targets)
        (told,) = (item.value for item in node.metadata_props if item.key == "torch_node")
        origin = model.origins[node.name]
        assert name == told == origin.node
        assert origin.operator == targets[name]
        kinds.setdefault(targets[name], set()).add(node.op_type)
    attention = kinds["aten.scaled_dot_product_attention.default"]
    assert ("Attention" in attention) == (opset == NEWEST_OPSET)
    assert ({"MatMul", "Softmax"} <= attention) == (opset != NEWEST_OPSET)
    assert kinds["aten.linear.default"] <= {"Transpose", "MatMul", "Add", "Gemm"}
    assert "LayerNormalization" in kinds["aten.layer_norm.default"]


def test_what_the_exporter_puts_in_has_no_origin() -> None:
    """A cast, where whole numbers are added to others."""
    plan = planned(lambda_module(lambda x, n: x + n)(), (torch.ones(2), torch.ones(2).long()))
    model = converted(plan, plan.blocks[0])
    cast, add = onnx.load_from_string(model.data).graph.node
    assert (cast.op_type, add.op_type) == ("Cast", "Add")
    assert list(model.origins) == [add.name] == ["node_add"]
    assert not cast.metadata_props
    assert not nodes_named(cast.name, ["add", "convert_element_type_default"])


def test_a_node_that_decomposing_numbers_anew_keeps_its_name_in_the_model() -> None:
    """What rms_norm becomes takes the name `mul`: `mul` is then `mul_1`, and that `mul_2`."""

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = functional.rms_norm(x, (8,))  # one node at opset 23, several products before
            return torch.sin(y * 2) * 3

    plan = planned(Model(), (torch.randn(2, 8),))
    (block,) = plan.blocks
    model = converted(plan, block, 22)
    targets = {n.name: str(n.target) for n in block.program.graph.nodes if n.op == "call_function"}
    (sine,) = (n for n in onnx.load_from_string(model.data).graph.node if n.op_type == "Sin")
    assert targets[model.origins[sine.name].node] == "aten.sin.default"
    products = [
        model.origins[n.name].operator
        for n in onnx.load_from_string(model.data).graph.node
        if n.op_type == "Mul"
    ]
    assert products.count("aten.mul.Tensor") == 2
    assert products.count("aten.rms_norm.default") >= 1


def test_large_weights_are_outside_and_small_ones_inside() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large, self.small = nn.Parameter(torch.randn(40)), nn.Parameter(torch.randn(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.large.sum() + self.small.sum()

    plan = planned(Mixed(), (torch.ones(3),))
    model = converted(plan, plan.blocks[0])
    proto = onnx.ModelProto.FromString(model.data)
    external = [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]

    assert model.weights == ("large",)
    assert [tensor.name for tensor in external] == ["large"]
    assert {entry.key: entry.value for entry in external[0].external_data}["location"] == (
        WEIGHTS_LOCATION
    )


def test_external_weights_lie_where_the_model_says() -> None:
    plan, block = planned_case("transformer_layer")
    image = image_from_tensors(plan.tensors)
    model = onnx_from_block(block, plan.tensors, WeightsImage(image), NEWEST_OPSET)
    for tensor in onnx.ModelProto.FromString(model.data).graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            start, length = int(place["offset"]), int(place["length"])
            found = image[start : start + length].view(torch.float32).view(tuple(tensor.dims))
            assert torch.equal(found, plan.tensors[tensor.name].detach())


def test_weights_are_not_folded_into_new_ones() -> None:
    """They would be stored beside the originals."""
    plan, block = planned_case("conv_dynamic_size")
    model = converted(plan, block)

    assert len(model.data) < sum(t.numel() * 4 for t in plan.tensors.values()) + 8000
    assert {"0.weight", "4.weight"} <= set(model.weights)


def test_a_model_has_no_paths_or_source_of_the_user() -> None:
    plan, block = planned_case("transformer_layer")
    data = converted(plan, block).data

    for part in (b".py", b'File "', b"/tests/", b"self.norm"):
        assert part not in data


def test_converting_twice_gives_the_same_bytes() -> None:
    first, again = (converted(*planned_case("conv_dynamic_size")).data for _ in range(2))

    assert first == again


def test_inputs_keep_the_names_of_the_block() -> None:
    plan, block = planned_case("input_named_input")
    names = [
        value.name for value in onnx.ModelProto.FromString(converted(plan, block).data).graph.input
    ]

    assert names == ["input", "list"]


def test_converting_does_not_change_the_block() -> None:
    plan, block = planned_case("transformer_layer")
    before = str(block.program.graph)
    converted(plan, block, 22)

    assert str(block.program.graph) == before


def test_converting_puts_no_guard_on_the_whole_program() -> None:
    """The exporter runs each block on the sizes of the program that the block is of."""
    batch = torch.export.Dim("batch", min=1, max=8)
    both = (torch.randn(3, 2), torch.randn(3, 2))
    with torch_internals.oblivious_to_size_one():
        module = lambda_module(lambda x, y: torch.atan2(x, y))()
        sizes = ({0: batch}, {0: batch})
        program = torch.export.export(module, both, dynamic_shapes=sizes)
    lowered = lower(program)
    plan = partition(lowered, Settings(min_block_size=1), translation)
    (block,) = plan.blocks
    converted(plan, block)

    with torch_internals.oblivious_to_size_one():
        again = lowered.run_decompositions({})  # torch writes the guards anew
    one = [tensor[:1] for tensor in both]
    torch.testing.assert_close(again.module()(*one), torch.atan2(*one))


# ---- errors -------------------------------------------------------------------------------------


def fails(*_: Any, **__: Any) -> Any:
    raise ValueError("this translation is broken")


def test_an_error_names_the_node_and_keeps_its_cause() -> None:
    registry = exporter._registry(NEWEST_OPSET, with_built_in())
    registry.register_op(torch.ops.portrt_tests.shifted_relu.default, fails)
    try:
        model = lambda_module(lambda x: shifted_relu(x * 2, 0.5) + 1)()
        plan = planned(model, (torch.ones(3),))
        with pytest.raises(ConvertError, match="this translation is broken") as caught:
            converted(plan, plan.blocks[0])
    finally:
        exporter._registry.cache_clear()

    assert caught.value.node == "shifted_relu"
    assert caught.value.__cause__ is not None


def test_an_error_of_no_known_node_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_internals, "onnx_ir_from_program", fails)
    plan, block = planned_case("mlp_static")

    with pytest.raises(ConvertError) as caught:
        converted(plan, block)

    assert caught.value.node is None


# ---- translations that are wrong ----------------------------------------------------------------

IMAGE = torch.arange(2 * 9 * 9, dtype=torch.float32).view(1, 2, 9, 9).sin()
WRONG: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "atan2": (
        lambda y, x: torch.atan2(y, x),
        (torch.tensor([0.0, -0.0, 1.0, math.nan]), torch.tensor([-1.0, -1.0, 1.0, 1.0])),
    ),
    "avg_pool2d": (lambda x: functional.avg_pool2d(x, 3, divisor_override=2), (IMAGE,)),
    "avg_pool3d": (lambda x: functional.avg_pool3d(x, 2, divisor_override=3), (IMAGE[None],)),
    "bilinear": (
        lambda x: functional.interpolate(x, scale_factor=0.7, mode="bilinear", antialias=True),
        (IMAGE,),
    ),
    "bicubic": (
        lambda x: functional.interpolate(x, scale_factor=0.7, mode="bicubic", antialias=True),
        (IMAGE,),
    ),
    "batch_norm": (
        lambda x: functional.batch_norm(x, torch.zeros(2), torch.ones(2), training=True),
        (IMAGE,),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_torch_onnx_gets_wrong_gives_the_answers_of_eager(name: str) -> None:
    function, args = WRONG[name]
    module = portrt.compile(
        lambda_module(lambda *xs: function(*[x * 1 for x in xs]) + 0)(),
        inputs=args,
        engines="onnxruntime",
        min_block_size=1,
    )

    assert_same(module(*args), function(*args), 1e-5, 1e-5)


@pytest.mark.parametrize("name", WRONG)
def test_torch_onnx_still_gets_it_wrong(name: str) -> None:
    """When this fails, the rule for it can go."""
    function, args = WRONG[name]
    program = torch.onnx.export(lambda_module(function)().eval(), args, dynamo=True, verbose=False)
    program.optimize()
    (got,) = program(*args)

    with pytest.raises(AssertionError):
        assert_same(got, function(*args), 1e-3, 1e-3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.avg_pool2d(x, 3),
        lambda x: functional.interpolate(x, size=(5, 7), mode="bilinear", antialias=True),
    ],
    ids=["avg_pool2d", "bilinear"],
)
def test_calls_that_are_translated_rightly_are_in_engines(function: Callable[..., Any]) -> None:
    plan = planned(lambda_module(function)(), (IMAGE,))

    assert plan.left_out == ()


def test_an_operator_whose_decomposition_is_not_functional_stays_whole() -> None:
    def scatter(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.diagonal_scatter(x * 2, y) + 1

    x, y = randn(4, 4), randn(4)
    module = portrt.compile(
        lambda_module(scatter)(), inputs=[x, y], engines="onnxruntime", min_block_size=1
    )

    assert_same(module(x, y), scatter(x, y), 1e-5, 1e-5)


# ---- numbers ------------------------------------------------------------------------------------


def test_nan_and_infinity_in_weights_stay(compiled: Compiled) -> None:
    case = CASES["nan_weights"]
    ((x,), _), *_ = case.arguments()
    y = compiled.program("nan_weights").module()(x)

    assert y[:, 0].isnan().all()
    assert y[:, 1].isinf().all()
    assert y[:, 2].isfinite().all()


def test_bfloat16_is_rounded_after_each_operator() -> None:
    def steps(x: torch.Tensor) -> torch.Tensor:
        return ((x * 3 + 1) / 7 - x) * 5

    x = randn(50).to(torch.bfloat16)
    plan = planned(lambda_module(steps)(), (x,))
    model = converted(plan, plan.blocks[0])
    widened = onnx.ModelProto.FromString(widen_bfloat16(model.data))
    kinds = {node.op_type for node in widened.graph.node}
    module = portrt.compile(
        lambda_module(steps)(), inputs=[x], engines="onnxruntime", min_block_size=1
    )

    assert "Cast" in kinds
    assert widened.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16
    assert widened.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16
    assert torch.equal(module(x), steps(x))


def test_a_small_model_with_folded_sizes_still_takes_every_size() -> None:
    case = CASES["sizes_on_both_sides"]
    program = case.compile()
    x = randn(5, 7)
    want = case.model()(x)

    assert_same(program.module()(x), want, 1e-5, 1e-5)
