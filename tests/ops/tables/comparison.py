"""Comparisons, and choices by a condition."""

from __future__ import annotations

import torch

from ops.case import ALL, EVERY, FLOATS, NUMBERS, T, rows

CASES = [
    *[
        row
        for op in ("eq", "ne", "lt", "le", "gt", "ge")
        for row in (
            *rows(f"{op}.Tensor", T("b,3", -1, 1), T("b,3", -1, 1), over=ALL),
            *rows(f"{op}.Tensor", T("2,1,3", -1, 1), T("b,1", -1, 1), over=("f32", "i64")),
            *rows(f"{op}.Tensor", T("", -1, 1), T("b", -1, 1), over=("f32", "i64")),
            *rows(
                f"{op}.Tensor", T("8,1", special=True), T("8", special=True), over=("f32", "f16")
            ),
            *rows(f"{op}.Tensor", T("f32:b,3", -1, 1), T("i64:3", -1, 1), variant="mixed"),
            *rows(f"{op}.Tensor", T("i32:b,3", -1, 1), T("i64:3", -1, 1), variant="mixed-int"),
            *rows(f"{op}.Tensor", T("bool:b,3", -1, 1), T("i64:3", -1, 1), variant="mixed-bool"),
            *rows(f"{op}.Tensor", T("0,3"), T("3")),
            *rows(f"{op}.Scalar", T("b,3", -1, 1), 0, over=ALL),
            *rows(f"{op}.Scalar", T("b,3", -1, 1), 0.5, over=NUMBERS),
            *rows(f"{op}.Scalar", T("8", special=True), 0),
            *rows(f"{op}.Scalar", T("", -1, 1), 0, over=("f32", "i64")),
            *rows(f"{op}.Scalar", T("b,3"), True, over=("bool",)),
        )
    ],
    *rows("where.self", T("bool:b,3"), T("b,3"), T("b,3"), over=ALL),
    *rows("where.self", T("bool:b,1"), T("3"), T(""), over=ALL),
    *rows("where.self", T("bool:"), T("b,3"), T("3"), over=("f32", "i64")),
    *rows("where.self", T("bool:0,3"), T("0,3"), T("3")),
    *rows("where.self", T("bool:b,3"), T("f32:b,3"), T("i64:b,3"), variant="mixed"),
    *rows("where.self", T("bool:b,3"), T("f16:b,3"), T("f32:"), variant="mixed-scalar"),
    *rows("where.self", T("bool:b,3"), T("b,3"), T("3"), over=("u8", "i8", "i16")),
    *rows("maximum.default", T("b,3"), T("3"), over=("u8", "i8", "i16")),
    *rows("minimum.default", T("b,3"), T("3"), over=("u8", "i8", "i16")),
    *rows("masked_fill.Scalar", T("b,4"), T("bool:b,1"), 1, over=EVERY),
    *rows("masked_fill.Tensor", T("b,4"), T("bool:4"), T(""), over=EVERY),
    *rows(
        "aten.where.self",
        T("b,3"),
        variant="numbers",
        function=lambda x: torch.where(x > 0, x, float("-inf")),
        over=FLOATS,
    ),
    *rows(
        "aten.where.self",
        T("b,3"),
        variant="two numbers",
        function=lambda x: torch.where(x > 0, 1.0, 0.0),
        over=("f32", "i64"),
    ),
]
