"""Rewrite rules for TensorRT's parsers: equal numbers before and after, an engine only after.

Each model is written by hand. Its numbers are computed by numpy or PyTorch, before and after by
ONNX Runtime. Where TensorRT-RTX is installed, its parser refuses the model before in the words that
the rule answers, and its builder makes an engine of the one after; it cannot run here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from tiny import call_of

import portrt
from portrt.backends import registry
from portrt.backends.build_process import Built, ParserRefusal, build_in_process
from portrt.convert import OnnxModel
from portrt.convert.rewrites import rewritten, rules
from portrt.convert.rewrites.bitwise import And, Not, Or, Xor
from portrt.convert.rewrites.eye_like import EyeLike
from portrt.convert.rewrites.fold import Fold
from portrt.convert.rewrites.layer_norm import LayerNormStatistics
from portrt.convert.rewrites.max_pool import MaxPoolIndices
from portrt.convert.rewrites.rule import Rule
from portrt.convert.rewrites.scatter_reduction import ScatterElements, ScatterND

RTX = registry.backend("tensorrt_rtx").can_build()
needs_tensorrt_rtx = pytest.mark.skipif(not RTX, reason=str(RTX))
INF = float("inf")

Arrays = Sequence[np.ndarray[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Example:
    """A model that a rule rewrites, inputs for it, and what it gives."""

    rule: type[Rule]
    name: str
    text: str
    inputs: Arrays
    wanted: Callable[..., Any]

    def model(self, opset: int = 23) -> OnnxModel:
        return onnx_model(self.text, opset)

    def shapes(self) -> dict[str, list[int]]:
        names = (value.name for value in onnx.load_from_string(self.model().data).graph.input)
        return {name: list(a.shape) for name, a in zip(names, self.inputs, strict=True)}


def onnx_model(text: str, opset: int = 23) -> OnnxModel:
    head = f'<ir_version: 10, opset_import: ["": {opset}]>\n'
    model = onnx.parser.parse_model(head + text)
    model = onnx.shape_inference.infer_shapes(model)
    return OnnxModel(model.SerializeToString(), (), opset, len(model.graph.node))


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
    return build_in_process(job, model.data, None, what="a test", python=None, timeout_s=120)


def whole_numbers(dtype: str) -> list[Any]:
    """Two arrays in which the ends of the range, zero and minus one meet each other."""
    limits = np.iinfo(dtype)
    ends = [limits.min, limits.min + 1, -2, -1, 0, 1, 2**30, limits.max - 1, limits.max]
    generator = np.random.default_rng(0)
    drawn = generator.integers(limits.min, limits.max, (2, 200), dtype, endpoint=True)
    one = np.concatenate([np.repeat(ends, len(ends)).astype(dtype), drawn[0]])
    other = np.concatenate([np.tile(ends, len(ends)).astype(dtype), drawn[1]])
    return [one, other]


NUMPY: dict[type[Rule], Any] = {And: np.bitwise_and, Or: np.bitwise_or, Xor: np.bitwise_xor}
BITWISE = [
    Example(
        rule,
        dtype,
        f"g ({dtype}[n] x, {dtype}[n] y) => ({dtype}[n] z) {{ z = Bitwise{rule.__name__}(x, y) }}",
        whole_numbers(dtype),
        NUMPY[rule],
    )
    for rule in NUMPY
    for dtype in ("int32", "int64")
] + [
    Example(
        Not,
        dtype,
        f"g ({dtype}[n] x) => ({dtype}[n] z) {{ z = BitwiseNot(x) }}",
        whole_numbers(dtype)[:1],
        np.bitwise_not,
    )
    for dtype in ("int32", "int64")
]

EYE = [
    Example(
        EyeLike,
        str(offset),
        f"g (float[a,b] x) => (float[a,b] z) {{ z = EyeLike<k={offset}>(x) }}",
        [np.zeros((3, 5), np.float32)],
        lambda x, offset=offset: np.eye(*x.shape, k=offset, dtype=np.float32),
    )
    for offset in (0, 2, -1)
]


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def with_infinity(array: Any) -> Any:
    array.flat[0] = INF
    return array


def folded(columns: Any, size: Any, kernel: Any, **options: Any) -> Any:
    return torch.nn.functional.fold(torch.tensor(columns), size, kernel, **options).numpy()


FOLD = [
    Example(
        Fold,
        "overlapping, with gaps and pads",
        """g (float[n,12,12] x) => (float[n,2,6,7] z) {
            size = Constant<value = int64[2] {6, 7}>()
            kernel = Constant<value = int64[2] {2, 3}>()
            z = Col2Im<dilations = [2, 1], pads = [1, 1, 1, 1], strides = [2, 2]>(x, size, kernel)
        }""",
        [with_infinity(numbers(3, 12, 12))],
        lambda x: folded(x, (6, 7), (2, 3), dilation=(2, 1), padding=(1, 1), stride=(2, 2)),
    ),
    Example(
        Fold,
        "apart",
        """g (float[n,8,4] x) => (float[n,2,4,4] z) {
            size = Constant<value = int64[2] {4, 4}>()
            kernel = Constant<value = int64[2] {2, 2}>()
            z = Col2Im<strides = [2, 2]>(x, size, kernel)
        }""",
        [numbers(3, 8, 4)],
        lambda x: folded(x, (4, 4), (2, 2), stride=(2, 2)),
    ),
]


def layer_norm(x: Any, weight: Any, bias: Any) -> Any:
    given = (torch.tensor(a) for a in (weight, bias))
    found = torch.native_layer_norm(torch.tensor(x), list(weight.shape), *given, 1e-3)
    return [item.numpy() for item in found]


LAYER_NORM = [
    Example(
        LayerNormStatistics,
        "two dimensions",
        """g (float[n,3,4] x, float[3,4] w, float[3,4] b)
            => (float[n,3,4] y, float[n,1,1] mean, float[n,1,1] inverse) {
            y, mean, inverse = LayerNormalization<axis = -2, epsilon = 0.001>(x, w, b)
        }""",
        [numbers(5, 3, 4), numbers(3, 4, seed=1), numbers(3, 4, seed=2)],
        layer_norm,
    )
]


def ties(*shape: int) -> Any:
    """Numbers of which many are equal, and some minus infinity."""
    array = np.random.default_rng(3).integers(-3, 2, shape).astype(np.float32)
    return np.where(array == -3, np.float32(-INF), array)


def max_pool(x: Any, rank: int, **options: Any) -> Any:
    """torch counts within each plane, ONNX through the whole tensor."""
    pool = (torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)[rank - 2]
    values, places = pool(torch.tensor(x), return_indices=True, **options)
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * rank)
    return values.numpy(), places.numpy() + planes * np.prod(x.shape[2:])


MAX_POOL = [
    Example(
        MaxPoolIndices,
        "padded, strided, with gaps, rounded up",
        """g (float[n,2,h,9] x) => (float[n,2,u,5] y, int64[n,2,u,5] at) {
            y, at = MaxPool<kernel_shape = [3, 2], strides = [2, 2], pads = [1, 1, 1, 1],
                            dilations = [2, 1], ceil_mode = 1>(x)
        }""",
        [ties(3, 2, 8, 9)],
        lambda x: max_pool(
            x, 2, kernel_size=(3, 2), stride=2, padding=1, dilation=(2, 1), ceil_mode=True
        ),
    ),
    Example(
        MaxPoolIndices,
        "volume",
        """g (float[n,1,4,4,4] x) => (float[n,1,2,2,2] y, int64[n,1,2,2,2] at) {
            y, at = MaxPool<kernel_shape = [2, 2, 2], strides = [2, 2, 2]>(x)
        }""",
        [ties(2, 1, 4, 4, 4)],
        lambda x: max_pool(x, 3, kernel_size=2),
    ),
]

AT: dict[str, Any] = {
    "add": np.add.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def scattered(data: Any, index: Any, updates: Any, reduction: str) -> Any:
    found = data.copy()
    AT[reduction](found, index, updates)
    return found


ROWS = np.array([[0, 2, -1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
PLACES = np.array([[0, 1], [2, -1], [0, 1], [-3, 1]])
SCATTER = [
    Example(
        ScatterElements,
        f"{reduction} {dtype}",
        f"""g ({dtype}[n,4] x, int64[n,m] i, {dtype}[n,m] u) => ({dtype}[n,4] z) {{
            z = ScatterElements<axis = 1, reduction = "{reduction}">(x, i, u)
        }}""",
        [
            (numbers(2, 4) * 9).astype("float32" if dtype == "float" else dtype),
            ROWS,
            (with_infinity(numbers(2, 6)) * 9 if dtype == "float" else ROWS + 2).astype(
                "float32" if dtype == "float" else dtype
            ),
        ],
        lambda x, i, u, reduction=reduction: scattered(x, (np.arange(2)[:, None], i), u, reduction),
    )
    for reduction in AT
    for dtype in ("float", "int64", "int32")
] + [
    Example(
        ScatterND,
        f"{reduction} {depth}",
        f"""g (float[3,4,2] x, int64[m,{depth}] i, float[m,{"4,2" if depth == 1 else "2"}] u)
            => (float[3,4,2] z) {{ z = ScatterND<reduction = "{reduction}">(x, i, u) }}""",
        [numbers(3, 4, 2), PLACES[:, :depth], numbers(4, *(4, 2)[depth - 1 :], seed=1)],
        lambda x, i, u, reduction=reduction: scattered(x, tuple(i.T), u, reduction),
    )
    for reduction in ("add", "max")
    for depth in (1, 2)
]

EXAMPLES = [*BITWISE, *EYE, *FOLD, *LAYER_NORM, *MAX_POOL, *SCATTER]
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
BUILT = list({case.rule: case for case in [*EXAMPLES, *BITWISE[1::2]]}.values())


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
    "case", [*BITWISE[1::2], *SCATTER[:1], *SCATTER[-1:]], ids=lambda c: c.rule.__name__
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

    assert [len(node.output) for node in kept.graph.node if node.op_type == "MaxPool"] == [2, 2]
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
