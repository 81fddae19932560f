"""One tensor in, one of the same shape out."""

from __future__ import annotations

import torch

from ops.case import ALL, FLOATS, INTS, NUMBERS, T, rows

aten = torch.ops.aten

# Operator -> range in which it is defined and does not overflow a float16.
_FLOAT_ONES = {
    "acos": (-1, 1),
    "acosh": (1, 9),
    "asin": (-1, 1),
    "asinh": (-4, 4),
    "atan": (-4, 4),
    "atanh": (-0.9, 0.9),
    "cos": (-4, 4),
    "cosh": (-4, 4),
    "erf": (-3, 3),
    "exp": (-4, 4),
    "expm1": (-4, 4),
    "log": (0.1, 9),
    "log10": (0.1, 9),
    "log1p": (-0.5, 9),
    "log2": (0.1, 9),
    "reciprocal": (0.5, 4),
    "rsqrt": (0.5, 9),
    "sigmoid": (-4, 4),
    "sin": (-4, 4),
    "sinh": (-4, 4),
    "sqrt": (0, 9),
    "tan": (-1, 1),
    "tanh": (-4, 4),
}
# Of whole numbers too, to whole numbers.
_NUMBER_ONES = ("abs", "neg", "sign", "ceil", "floor", "round", "trunc", "relu")

_NOT_DOUBLE = {"asinh", "atan", "cosh", "erf", "sinh", "tan"}


def _lacks(op: str) -> tuple[str, ...]:
    return ("f64",) if op in _NOT_DOUBLE else ()


CASES = [
    *[
        row
        for op, (low, high) in _FLOAT_ONES.items()
        for row in (
            *rows(f"{op}.default", T("b,3", low, high), over=FLOATS, lacks=_lacks(op)),
            *rows(f"{op}.default", T("", low, high), over=("f32", "f16")),
            *rows(f"{op}.default", T("0,3"), over=("f32", "i64")),
            *rows(f"{op}.default", T("2,1,2,b,2", low, high)),
            *rows(
                f"{op}.default", T("8", special=True), over=("f32", "f16", "f64"), lacks=_lacks(op)
            ),
            *rows(f"{op}.default", T("4", max(low, 0) + 1, high), over=INTS),
            *rows(f"{op}.default", T("4", 1, 1), over=("bool",)),
        )
        if not (op in ("acos", "asin", "atanh", "acosh") and "4" in row.variant)
        or row.variant.startswith("bool")
    ],
    *[
        row
        for op in _NUMBER_ONES
        for row in (
            *rows(f"{op}.default", T("b,3", -4, 4), over=NUMBERS),
            *rows(f"{op}.default", T("", -4, 4), over=("f32", "i32")),
            *rows(f"{op}.default", T("0,3"), over=("f32", "i64")),
            *rows(f"{op}.default", T("8", special=True), over=("f32", "f16")),
        )
    ],
    *rows("abs.default", T("2,b", -9, 9), over=("i8", "i16")),
    *rows("sign.default", T("2,b", -9, 9), over=("i8", "bool")),
    *rows(
        "round.default",
        T("16", -8, 8),
        variant="halves",
        function=lambda x: torch.round(x.floor() / 2),
    ),
    *rows("bitwise_not.default", T("b,3", -9, 9), over=("i64", "i32", "bool", "u8", "i8")),
    *rows("bitwise_not.default", T(""), over=("i64", "bool")),
    *rows("bitwise_not.default", T("0,3"), over=("i64", "bool")),
    *rows("logical_not.default", T("b,3", -1, 1), over=ALL),
    *rows("logical_not.default", T("8", special=True)),
    *rows("logical_not.default", T(""), over=("f32", "bool")),
    *[
        row
        for op in ("isinf", "isnan")
        for row in (
            *rows(f"{op}.default", T("b,3"), over=ALL),
            *rows(f"{op}.default", T("8", special=True), over=FLOATS),
            *rows(f"{op}.default", T("")),
            *rows(f"{op}.default", T("0,3")),
        )
    ],
    # Activations.
    *rows("elu.default", T("b,3"), over=FLOATS, lacks=("f64",)),
    *rows("elu.default", T("8", special=True)),
    *rows("elu.default", T("b,3"), 0.5, 1.5, 2.0),
    *rows("elu.default", T("b,3"), 2.0, 1.0, 1.0),
    *rows("gelu.default", T("b,3"), over=FLOATS, lacks=("f64",)),
    *rows("gelu.default", T("b,3"), over=("f32", "f16", "bf16"), approximate="tanh"),
    *rows("gelu.default", T("b,3"), over=("f64",), approximate="tanh", tolerance=(1e-7, 1e-7)),
    *rows("hardtanh.default", T("b,3"), over=FLOATS),
    *rows("hardtanh.default", T("8", special=True)),
    *rows("hardtanh.default", T("b,3", -9, 9), 0, 6, over=("f32", "i64", "i32")),
    *rows("hardtanh.default", T(""), -0.5, 0.25),
    *rows("leaky_relu.default", T("b,3"), over=FLOATS, lacks=("f64",)),
    *rows("leaky_relu.default", T("8", special=True)),
    *rows("leaky_relu.default", T("b,3"), 0.2),
    *rows("leaky_relu.default", T("b,3"), -0.5),
    *rows("leaky_relu.default", T(""), 1),
    # Copies, and casts between all pairs.
    *rows(
        "aten.alias.default",
        T("b,3"),
        over=("f32", "i64", "bool"),
        variant="copy",
        function=lambda x: aten.alias(x.logical_not()),
    ),
    *rows("clone.default", T("b,3"), over=ALL),
    *rows("clone.default", T("0,3")),
    *rows("clone.default", T("b,3,4,4"), memory_format=torch.channels_last),
    *rows(
        "aten.copy.default",
        T("b,3"),
        T("f32:3"),
        over=ALL,
        variant="broadcast",
        function=lambda x, y: aten.copy(x, y),
    ),
    *rows(
        "aten.copy.default",
        T(""),
        T(""),
        over=("f32", "i64"),
        variant="scalar",
        function=lambda x, y: aten.copy(x, y),
    ),
    *[
        row
        for to in (
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.float64,
            torch.int64,
            torch.int32,
            torch.bool,
            torch.uint8,
            torch.int8,
        )
        for row in rows("_to_copy.default", T("b,3", 0, 9), over=(*ALL, "u8"), dtype=to)
    ],
    *rows("_to_copy.default", T("b,4", -9, 9), over=("f32", "f64"), dtype=torch.int64),
    *rows("_to_copy.default", T("b,4", -300, 300), over=("i64", "i32"), dtype=torch.uint8),
    *rows("_to_copy.default", T("b,4", -300, 300), over=("i64", "i32"), dtype=torch.int8),
    *rows("_to_copy.default", T("", -9, 9), dtype=torch.int32),
    *rows("_to_copy.default", T("0,3"), dtype=torch.float16),
    *rows("_to_copy.default", T("8", special=True), dtype=torch.float16),
    *rows("_to_copy.default", T("8", special=True), dtype=torch.bool),
    *rows("fill.Scalar", T("b,3"), 2, over=ALL),
    *rows("fill.Scalar", T(""), 2.5, over=("f32", "i64")),
    *rows("fill.Scalar", T("b,s"), float("-inf")),
]
