"""Hand-written ONNX models that the rewrite rules change, with inputs and what they give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import torch

from portrt.compiler.backends.tensorrt.rewrites.bitwise import And, Not, Or, Xor, XorOfSigns
from portrt.compiler.backends.tensorrt.rewrites.eye_like import EyeLike
from portrt.compiler.backends.tensorrt.rewrites.fold import Fold
from portrt.compiler.backends.tensorrt.rewrites.integers import AllOfBools, AnyOfBools, MatMul
from portrt.compiler.backends.tensorrt.rewrites.large_pool import LargeAveragePool, LargeMaxPool
from portrt.compiler.backends.tensorrt.rewrites.layer_norm import LayerNormStatistics
from portrt.compiler.backends.tensorrt.rewrites.max_pool import MaxPoolIndices
from portrt.compiler.backends.tensorrt.rewrites.rule import Rule
from portrt.compiler.backends.tensorrt.rewrites.scatter_reduction import (
    ScatterElements,
    ScatterFill,
    ScatterND,
)
from portrt.compiler.backends.tensorrt.rewrites.shifts import (
    ByteShift,
    FilledBytes,
    SelectedBytes,
    SignedShift,
)
from portrt.compiler.convert import OnnxModel

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
    for dtype in ("uint8", "int32", "int64")
] + [
    Example(
        Not,
        dtype,
        f"g ({dtype}[n] x) => ({dtype}[n] z) {{ z = BitwiseNot(x) }}",
        whole_numbers(dtype)[:1],
        np.bitwise_not,
    )
    for dtype in ("uint8", "int32", "int64")
]
SIGNS = Example(
    XorOfSigns,
    "absolute numbers, less one",
    """g (int32[n] x) => (int32[n] z) <int32 zero = {0}, int32 ones = {-1}> {
        negative = Less(x, zero)
        signs = Where(negative, ones, zero)
        z = BitwiseXor(x, signs)
    }""",
    whole_numbers("int32")[:1],
    lambda x: np.where(x < 0, ~x, x),
)


def shifted(dtype: str, direction: str) -> Example:
    """All amounts below the width; the right shift is that of the bits, as ONNX's."""
    bits = np.iinfo(dtype).bits
    ends = np.unique(whole_numbers(dtype))[:, None]
    unsigned = np.dtype(f"uint{bits}")
    text, rule = f'z = BitShift<direction = "{direction}">(x, y)', ByteShift
    if dtype != "uint8":
        kind = onnx.helper.np_dtype_to_tensor_dtype(unsigned)
        back = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        rule = SignedShift
        text = f"""a = Cast<to = {kind}>(x)
            b = Cast<to = {kind}>(y)
            c = BitShift<direction = "{direction}">(a, b)
            z = Cast<to = {back}>(c)"""

    def wanted(x: Any, y: Any) -> Any:
        shift = np.left_shift if direction == "LEFT" else np.right_shift
        return shift(x.astype(unsigned), y.astype(unsigned)).astype(dtype)

    return Example(
        rule,
        f"{dtype} {direction}",
        f"g ({dtype}[n,m] x, {dtype}[k] y) => ({dtype}[n,m] z) {{ {text} }}",
        [np.repeat(ends, bits, 1), np.arange(bits).astype(dtype)],
        wanted,
    )


SHIFTS = [
    shifted(dtype, direction)
    for dtype in ("uint8", "int64", "int32")
    for direction in ("LEFT", "RIGHT")
] + [
    Example(
        SelectedBytes,
        "two tensors",
        "g (bool[n] c, uint8[n] x, uint8[n] y) => (uint8[n] z) { z = Where(c, x, y) }",
        [whole_numbers("uint8")[0] % 2 == 0, *whole_numbers("uint8")],
        np.where,
    ),
    Example(
        FilledBytes,
        "ones",
        """g (float[n] x) => (uint8[n] z) {
            size = Shape(x)
            z = ConstantOfShape<value = uint8[1] {1}>(size)
        }""",
        [np.zeros(3, np.float32)],
        lambda x: np.ones(x.shape, np.uint8),
    ),
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


def large_pool(kind: str, sizes: str, array: Any, kernel: Any, **options: Any) -> Example:
    """A pool whose windows are larger than TensorRT takes, or than the input."""
    rank = len(kernel)
    stride = options.get("stride", kernel)
    pads = list(options.get("padding", [0] * rank)) * 2
    given = f"kernel_shape = {list(kernel)}, strides = {list(stride)}, pads = {pads}"
    given += f", ceil_mode = {int(options.get('ceil_mode', False))}"
    if kind == "avg":
        given += f", count_include_pad = {int(options.get('count_include_pad', True))}"
    operator = {"avg": "AveragePool", "max": "MaxPool"}[kind]
    pool = getattr(torch.nn.functional, f"{kind}_pool{rank}d")
    found = ",".join("uvw"[:rank])
    return Example(
        LargeAveragePool if kind == "avg" else LargeMaxPool,
        f"{kernel} of {sizes}",
        f"g (float[n,2,{sizes}] x) => (float[n,2,{found}] z) {{ z = {operator}<{given}>(x) }}",
        [array],
        lambda x: pool(torch.tensor(x), kernel, **options).numpy(),
    )


LARGE_POOLS = [
    large_pool(
        "avg", "a", numbers(2, 2, 5), [12], padding=[2], ceil_mode=True, count_include_pad=False
    ),
    large_pool("avg", "4,7", numbers(2, 2, 4, 7), [8, 3], padding=[1, 1], ceil_mode=True),
    large_pool("avg", "2,a,b", numbers(1, 2, 2, 400, 330), [2, 310, 330], stride=[2, 60, 2]),
    large_pool("avg", "a,b", numbers(1, 2, 8, 9), [320, 320], ceil_mode=True),
    large_pool("avg", "400,b", numbers(1, 2, 400, 330), [310, 330], stride=[60, 2], padding=[9, 3]),
    large_pool("max", "a", ties(2, 2, 5), [12], padding=[2], ceil_mode=True),
    large_pool("max", "9,4,b", ties(2, 2, 9, 4, 6), [4, 50, 50], ceil_mode=True),
    large_pool("max", "a,b", ties(1, 2, 400, 330), [310, 330], stride=[60, 2], padding=[9, 3]),
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

FILL = Example(
    ScatterFill,
    "more indices than places",
    """g (float[n,4] x, int64[n,6] i) => (float[n,4] z) {
        size = Shape(i)
        u = ConstantOfShape<value = float[1] {-7}>(size)
        z = ScatterElements<axis = 1>(x, i, u)
    }""",
    [numbers(2, 4), ROWS],
    lambda x, i: torch.tensor(x).scatter(1, torch.tensor(i) % 4, -7).numpy(),
)

WHOLE = [
    Example(
        MatMul,
        dtype,
        f"g ({dtype}[b,1,m,3] x, {dtype}[2,3,5] y) => ({dtype}[b,2,m,5] z) {{ z = MatMul(x, y) }}",
        [
            np.random.default_rng(seed).integers(-(2**14), 2**14, shape).astype(dtype)
            for seed, shape in enumerate([(3, 1, 4, 3), (2, 3, 5)])
        ],
        np.matmul,
    )
    for dtype in ("int32", "int64")
] + [
    Example(
        rule,
        "bools",
        f"""g (bool[n,4] x) => (bool[n] z) {{
            axes = Constant<value = int64[1] {{1}}>()
            z = {operator}<keepdims = 0>(x, axes)
        }}""",
        [np.array([[True] * 4, [False] * 4, [False, True, False, False]])],
        lambda x, found=found: found(x, axis=1),
    )
    for rule, operator, found in (
        (AnyOfBools, "ReduceMax", np.any),
        (AllOfBools, "ReduceMin", np.all),
    )
]

EXAMPLES = [
    *(*BITWISE, SIGNS, *SHIFTS),
    *(*EYE, *FOLD, *LAYER_NORM),
    *(*MAX_POOL, *LARGE_POOLS),
    *(*SCATTER, FILL, *WHOLE),
]
