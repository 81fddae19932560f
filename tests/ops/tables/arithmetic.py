"""Two tensors, or a tensor and a number."""

from __future__ import annotations

import torch

from ops.case import FLOATS, INTS, NUMBERS, Case, T, rows


def _broadcasts(
    op: str,
    *,
    over: tuple[str, ...] = ("f32",),
    low: float = -4,
    high: float = 4,
    low2: float | None = None,
    high2: float | None = None,
    **options: object,
) -> list[Case]:
    """Shapes that broadcast in every way."""
    low2 = low if low2 is None else low2
    high2 = high if high2 is None else high2
    pairs = (("b,3", "b,3"), ("b,3", "3"), ("2,1,3", "b,1"), ("", "b,3"), ("b,3", ""), ("0,3", "3"))
    return [
        row
        for a, b in pairs
        for row in rows(
            op,
            T(a, low, high),
            T(b, low2, high2),
            over=over if a == "b,3" == b else over[:1],
            **options,
        )
    ]


# Part of why powers of whole numbers stay in PyTorch.
_AS_FLOAT64 = "as float64"
_SPECIAL = [T("8,1", special=True), T("8", special=True)]
_MIXED = (
    ("f32:b,3", "i64:b,3"),
    ("i32:b,3", "i64:b,3"),
    ("f16:b,3", "f32:b,3"),
    ("bf16:b,3", "f16:b,3"),
    ("f16:b,3", "f32:"),
    ("bool:b,3", "f32:b,3"),
    ("bool:b,3", "i64:"),
    ("f64:", "f32:b,3"),
)


def _mixed(op: str, low: float = 1, high: float = 4) -> list[Case]:
    """Two dtypes, which torch promotes."""
    return [
        row
        for a, b in _MIXED
        for row in rows(op, T(a, low, high), T(b, low, high), variant=f"{a}-{b}")
    ]


CASES = [
    *[
        row
        for op in ("add.Tensor", "sub.Tensor")
        for row in (
            *_broadcasts(op, over=NUMBERS),
            *_mixed(op)[: 8 if op == "add.Tensor" else 5],
            *rows(op, *_SPECIAL, over=("f32", "f16")),
            *rows(op, T("b,3"), T("3"), over=("f32", "f16", "i64"), alpha=2),
            *rows(op, T("b,3"), T("3"), alpha=0.5),
        )
    ],
    *rows("add.Tensor", T("b,3"), T("b,3"), over=("bool", "u8", "i8", "i16")),
    *[
        row
        for op in ("add.Scalar", "sub.Scalar", "mul.Scalar")
        for row in (
            *rows(op, T("b,3", -4, 4), 2, over=NUMBERS),
            *rows(op, T("b,3", -4, 4), 0.3, over=(*FLOATS, *INTS)),
            *rows(op, T("", -4, 4), 3, over=("f32", "i64")),
            *rows(op, T("0,3"), 3),
        )
    ],
    *rows("add.Scalar", T("b,3"), 1, 3, over=("f32", "i64")),
    *rows("sub.Scalar", T("b,3"), 1, 3, over=("f32", "i64")),
    *rows("add.Scalar", T("b,3"), 1, over=("bool",)),
    *rows("mul.Scalar", T("b,3"), 2, over=("bool",)),
    *_broadcasts("mul.Tensor", over=(*NUMBERS, "bool")),
    *_mixed("mul.Tensor"),
    *rows("mul.Tensor", *_SPECIAL, over=("f32", "f16")),
    *_broadcasts("div.Tensor", over=NUMBERS, low2=1, high2=4),
    *_mixed("div.Tensor"),
    *rows("div.Tensor", *_SPECIAL, over=("f32", "f16")),
    *rows("div.Tensor", T("b,3"), T("b,3", 1, 1), over=("bool",)),
    *rows("div.Scalar", T("b,3", -9, 9), 2, over=NUMBERS),
    *rows("div.Scalar", T("b,3", -9, 9), 0.3, over=NUMBERS),
    *rows("div.Scalar", T("b,3"), 0),
    *[
        row
        for mode in ("floor", "trunc", None)
        for row in (
            *_broadcasts(
                "div.Tensor_mode", over=NUMBERS, low=-9, high=9, low2=1, high2=4, rounding_mode=mode
            ),
            *rows(
                "div.Tensor_mode",
                T("4,b", -9, 9),
                T("4,1", -3, -1),
                over=NUMBERS,
                rounding_mode=mode,
            ),
            *rows(
                "div.Tensor_mode",
                T("f32:b,3", -9, 9),
                T("i64:b,3", 1, 4),
                variant=f"mixed-{mode}",
                rounding_mode=mode,
            ),
            *rows("div.Scalar_mode", T("b,3", -9, 9), 2, over=NUMBERS, rounding_mode=mode),
            *rows("div.Scalar_mode", T("b,3", -9, 9), -3, over=("f32", "i64"), rounding_mode=mode),
            *rows("div.Scalar_mode", T("b,3", -9, 9), 0.7, over=("f32", "i64"), rounding_mode=mode),
        )
    ],
    *rows("div.Tensor_mode", *_SPECIAL, rounding_mode="trunc"),
    *rows("div.Tensor_mode", *_SPECIAL, rounding_mode="floor"),
    *[
        row
        for op in ("fmod", "remainder")
        for row in (
            *_broadcasts(f"{op}.Tensor", over=NUMBERS, low=-9, high=9, low2=1, high2=4),
            *rows(f"{op}.Tensor", T("4,b", -9, 9), T("4,1", -3, -1), over=NUMBERS),
            *rows(f"{op}.Tensor", T("f32:b,3", -9, 9), T("i64:b,3", 1, 4), variant="mixed"),
            *rows(f"{op}.Tensor", *_SPECIAL),
            *rows(f"{op}.Scalar", T("b,3", -9, 9), 2, over=NUMBERS),
            *rows(f"{op}.Scalar", T("b,3", -9, 9), -3, over=NUMBERS),
            *rows(f"{op}.Scalar", T("b,3", -9, 9), 2.5, over=("f32", "f64")),
            *rows(f"{op}.Scalar", T("", -9, 9), 2, over=("f32", "i64")),
        )
    ],
    *_broadcasts("atan2.default", over=FLOATS, lacks=("f64",)),
    *rows("atan2.default", *_SPECIAL, over=("f32", "f16")),
    *rows("atan2.default", T("b,3", -3, 3), T("3", -3, 3), over=INTS),
    *rows(
        "aten.atan2.out",
        T("b,3"),
        T("b,3"),
        variant="out",
        function=lambda x, y: torch.ops.aten.atan2.out(x, y, out=torch.empty_like(x)),
    ),
    *[
        row
        for op in ("maximum", "minimum")
        for row in (
            *_broadcasts(f"{op}.default", over=NUMBERS),
            *_mixed(f"{op}.default")[:4],
            *rows(f"{op}.default", *_SPECIAL, over=("f32", "f16")),
            *rows(f"{op}.default", T("b,3"), T("b,3"), over=("bool",)),
        )
    ],
    *_broadcasts("pow.Tensor_Tensor", over=FLOATS, low=0.5, high=3, low2=-2, high2=2),
    *rows("pow.Tensor_Tensor", T("b,3", -3, 3), T("3", 0, 3), over=INTS, stays=_AS_FLOAT64),
    *rows("pow.Tensor_Tensor", T("f32:b,3", 1, 3), T("i64:3", -2, 3), variant="mixed"),
    *rows("pow.Tensor_Tensor", T("i64:b,3", 1, 3), T("f32:3", -2, 3), variant="mixed2"),
    *rows("pow.Tensor_Tensor", *_SPECIAL),
    *[
        row
        for exponent in (0, 1, 2, 3, -1, -2, 0.5, -0.5, 1.7, 2.0)
        for row in (
            *rows("pow.Tensor_Scalar", T("b,3", 0.5, 3), exponent, over=FLOATS),
            *rows("pow.Tensor_Scalar", T("8", special=True), exponent),
        )
    ],
    *rows("pow.Tensor_Scalar", T("b,3"), 2, over=INTS),
    *rows("pow.Tensor_Scalar", T("b,3"), 3, over=INTS),
    *rows("pow.Tensor_Scalar", T("b,3"), 11, over=(*INTS, "u8")),
    *rows("pow.Tensor_Scalar", T("b,3"), 0, over=INTS),
    *rows("pow.Tensor_Scalar", T("b,3", 1, 4), 0.5, over=INTS),
    *rows("pow.Tensor_Scalar", T("", 1, 4), 2.5),
    *rows("pow.Scalar", 2, T("b,3", -3, 3), over=FLOATS),
    *rows("pow.Scalar", 2, T("b,3", 0, 5), over=INTS, stays=_AS_FLOAT64),
    *rows("pow.Scalar", 1.5, T("b,3", 0, 5), over=("f32", "i64")),
    *rows("pow.Scalar", 0.5, T("8", special=True)),
    # Bits and truth.
    *[
        row
        for op in ("bitwise_and", "bitwise_or", "bitwise_xor")
        for row in (
            *_broadcasts(f"{op}.Tensor", over=("i64", "i32", "bool", "u8"), low=0, high=9),
            *rows(f"{op}.Tensor", T("b,4", -9, 9), T("4", -9, 9), over=("i64", "i8")),
            *rows(f"{op}.Tensor", T("i64:b,3", -9, 9), T("i32:3", -9, 9), variant="mixed"),
            *rows(f"{op}.Tensor", T("i64:b,3", -9, 9), T("bool:3"), variant="mixed-bool"),
            *rows(f"{op}.Scalar", T("b,3", -9, 9), 6, over=INTS),
            *rows(f"{op}.Scalar", T("b,3"), True, over=("bool", "i64")),
        )
    ],
    *[
        row
        for op in ("logical_and", "logical_or", "logical_xor")
        for row in (
            *_broadcasts(f"{op}.default", over=("bool", *NUMBERS), low=-1, high=1),
            *rows(f"{op}.default", T("f32:b,3", 0, 1), T("bool:3"), variant="mixed"),
            *rows(f"{op}.default", *_SPECIAL),
        )
    ],
    # Limits.
    *rows("clamp.default", T("b,3", -4, 4), -1, 2, over=NUMBERS),
    *rows("clamp.default", T("b,3", -4, 4), -0.5, over=FLOATS),
    *rows("clamp.default", T("b,3", -4, 4), None, 1, over=NUMBERS),
    *rows("clamp.default", T("b,3", -4, 4), 0.5, 1.5, over=INTS),
    *rows("clamp.default", T("b,3", -4, 4), 2, -1),
    *rows("clamp.default", T("", -4, 4), 0, 1, over=("f32", "i64")),
    *rows("clamp.default", T("0,3"), 0, 1),
    *rows("clamp.default", T("8", special=True), -1, 1, over=("f32", "f16")),
    *rows("clamp.default", T("8", special=True), min=0),
    *rows("clamp.Tensor", T("b,3", -4, 4), T("3", -1, 0), T("3", 0, 1), over=NUMBERS),
    *rows("clamp.Tensor", T("b,3", -4, 4), T("", -1, 0), over=("f32", "i64")),
    *rows("clamp.Tensor", T("b,3", -4, 4), None, T("b,1", -1, 0), over=("f32", "i64")),
    *rows("clamp.Tensor", T("b,3"), T("3", 1, 2), T("3", -2, -1), variant="crossed"),
    *rows("clamp.Tensor", T("8", special=True), T("8,1", special=True), T("8,1,1", special=True)),
    *rows("clamp.Tensor", T("8", special=True), None, T("8,1", special=True)),
]
