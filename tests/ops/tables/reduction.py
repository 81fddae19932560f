"""Reductions, running sums, order."""

from __future__ import annotations

import torch

from ops.case import ALL, EVERY, FLOATS, INTS, NUMBERS, T, rows

CASES = [
    *[
        row
        for op in ("amax", "amin")
        for row in (
            *rows(f"{op}.default", T("b,3,4"), [-1], over=ALL),
            *rows(f"{op}.default", T("b,3,4"), [0, -1], True, over=("f32", "f16", "i64")),
            *rows(f"{op}.default", T("b,s"), over=("f32", "i64")),
            *rows(f"{op}.default", T("b,3"), [1], over=("u8", "i8", "i16"), lacks=("i16",)),
            *rows(f"{op}.default", T(""), over=("f32", "i64")),
            *rows(f"{op}.default", T("0,3"), [1]),
            *rows(f"{op}.default", T("8,1", special=True), [1], over=("f32", "f16")),
            *rows(f"{op}.default", T("2,8", special=True), [0], True),
        )
    ],
    *rows("any.default", T("b,3", -1, 1), over=ALL),
    *rows("any.default", T("u8:b,3", 0, 1)),
    *rows("any.dim", T("u8:b,3,2", 0, 1), -1),
    *rows("any.dims", T("u8:b,3,2", 0, 1), [0, 2], True),
    *rows("any.dims", T("b,3"), [], over=("u8", "bool", "i64", "f32")),
    *rows("all.default", T("u8:b,3", 0, 1)),
    *rows("all.dim", T("u8:b,3,2", 0, 1), -1),
    *rows("all.dims", T("u8:b,3,2", 0, 1), [0, 2], True),
    *rows("all.dims", T("b,3"), [], over=("u8", "bool", "i64", "f32")),
    *rows("any.default", T("", -1, 1), over=("f32", "bool")),
    *rows("any.default", T("0,3"), over=("f32", "bool")),
    *rows("any.default", T("8", special=True)),
    *rows("any.dim", T("b,3,2", -1, 1), -1, over=ALL),
    *rows("any.dim", T("b,3,2", -1, 1), 1, True, over=("f32", "bool", "i64")),
    *rows("any.dim", T("0,3"), 0, over=("f32", "bool")),
    *rows("any.dim", T("bool:"), 0),
    *rows("any.dims", T("b,3,2", -1, 1), [0, 2], over=ALL),
    *rows("any.dims", T("b,3,2", -1, 1), [-1], True, over=("bool",)),
    *rows("any.dims", T("b,3,2", -1, 1), over=("bool",)),
    *[
        row
        for op in ("argmax", "argmin")
        for row in (
            *rows(f"{op}.default", T("b,5", distinct=True), -1, over=NUMBERS),
            *rows(f"{op}.default", T("b,5", distinct=True), 1, True, over=("f32", "i64")),
            *rows(
                f"{op}.default",
                T("b,2,5", distinct=True),
                -1,
                over=("u8", "i8", "i16"),
                lacks=("i16",),
            ),
            *rows(f"{op}.default", T("2,3,1,5", -9, 9), 0),
            *rows(f"{op}.default", T("12", distinct=True), over=("f32", "i64")),
            *rows(f"{op}.default", T("b,s", -90, 90)),
            *rows(f"{op}.default", T("3,4", -90, 90), None, True),
            *rows(f"{op}.default", T("")),
            *rows(f"{op}.default", T(""), 0),
            *rows(f"{op}.default", T("b,9", -1, 1), -1, over=INTS, variant="ties"),
            *rows(f"{op}.default", T("0,3"), 1),
        )
    ],
    *[
        row
        for op in ("cummax.default", "cummin.default")
        for row in (
            *rows(op, T("b,4"), 1, over=EVERY),
            *rows(op, T("b,5,s"), -1, over=("f32", "i64")),
            *rows(op, T("b,5,s"), 0),
            *rows(op, T("2,9", special=True), -1, over=("f32", "f16", "f64")),
            *rows(op, T("2,0"), -1),
            *rows(op, T("2,1"), -2),
            *rows(op, T(""), 0, over=("f32", "bool")),
        )
    ],
    *[
        row
        for op in ("_is_all_true.default", "_is_any_true.default")
        for row in (*rows(op, T("bool:b,2")), *rows(op, T("bool:0,3")), *rows(op, T("bool:")))
    ],
    *rows("cumsum.default", T("b,4"), 1, over=NUMBERS),
    *rows("cumsum.default", T("b,4,3"), -2, over=("f32", "bool")),
    *rows("cumsum.default", T("b,s"), 0),
    *rows("cumsum.default", T("b,4"), 1, dtype=torch.float64, over=("f32", "i32")),
    *rows("cumsum.default", T("b,4"), 1, dtype=torch.float32, over=("f16", "i64", "bool")),
    *rows("cumsum.default", T("b,4"), 1, dtype=torch.int32, over=("bool", "i32")),
    *rows("cumsum.default", T(""), 0, over=("f32", "i64")),
    *rows("cumsum.default", T("0,3"), 1),
    *[
        row
        for op in ("max.dim", "min.dim")
        for row in (
            *rows(op, T("b,5", distinct=True), 1, over=NUMBERS),
            *rows(op, T("b,5,2", -9, 9), -2, True),
            *rows(op, T("b,5", distinct=True), -1, over=("u8", "i8", "i16"), lacks=("i16",)),
            *rows(op, T("b,9", -1, 1), 1, over=("i64",), variant="ties"),
            *rows(op, T(""), 0),
            *rows(op, T("0,3"), 1),
            *rows(op, T("b,3"), 1, over=("bool",)),
        )
    ],
    *rows("mean.default", T("b,3"), over=FLOATS),
    *rows("mean.default", T("")),
    *rows("mean.default", T("b,s"), dtype=torch.float32, over=("f32", "i64", "bool", "f16")),
    *rows("mean.dim", T("b,3,4"), [-1], over=FLOATS),
    *rows("mean.dim", T("b,3,s"), [0, 2], True, over=("f32", "f16")),
    *rows("mean.dim", T("b,3,4"), [1], dtype=torch.float64, over=("f32", "i64")),
    *rows("mean.dim", T("b,3,4"), None),
    *rows("mean.dim", T("b,3,4"), []),
    *rows("mean.dim", T(""), [0]),
    *rows("mean.dim", T("0,3"), [1]),
    *rows("mean.dim", T("0,3"), [0]),
    *rows("prod.default", T("b,3"), over=FLOATS),
    *rows("prod.default", T(""), over=("f32", "bool")),
    *rows("prod.default", T("0,3")),
    *rows("prod.default", T("b,3"), dtype=torch.float64, over=("f32", "i64", "bool")),
    *rows("prod.dim_int", T("b,3"), 1, over=FLOATS),
    *rows("prod.dim_int", T("b,3,2"), -2, True, over=("f32", "bool")),
    *rows("prod.dim_int", T("b,3"), 0, dtype=torch.float32, over=("i64", "bool")),
    *rows("prod.default", T("b,3"), over=INTS, stays="as float64"),
    *rows("prod.dim_int", T("b,3"), 1, over=INTS, stays="as float64"),
    *rows("prod.dim_int", T(""), 0),
    *rows("prod.dim_int", T("0,3"), 0),
    *rows("sum.dim_IntList", T("b,3,4"), [-1], over=ALL),
    *rows("sum.dim_IntList", T("b,3,s"), [0, 2], True, over=("f32", "f16", "i64")),
    *rows("sum.dim_IntList", T("b,3,4"), [], over=("f32", "bool")),
    *rows("sum.dim_IntList", T("b,3,4"), None),
    *rows(
        "sum.dim_IntList", T("b,3"), [1], dtype=torch.float32, over=("i64", "bool", "f16", "f64")
    ),
    *rows("sum.dim_IntList", T("b,3"), [1], dtype=torch.int32, over=("bool", "i32", "i64")),
    *rows("sum.dim_IntList", T(""), [0], over=("f32", "i64")),
    *rows("sum.dim_IntList", T("0,3"), [0], over=("f32", "i64")),
    *rows("sum.dim_IntList", T("0,3"), [1]),
    *rows("sum.dim_IntList", T("8,1", special=True), [1]),
    *rows("sum.dim_IntList", T("b,3"), [1], over=("u8", "i8", "i16")),
    *rows("var.dim", T("b,5"), [1], over=FLOATS),
    *rows("var.dim", T("b,5,2"), [0, 1], False, True),
    *rows("var.dim", T("b,5"), None),
    *rows("var.correction", T("b,5"), [-1], over=FLOATS, correction=0),
    *rows("var.correction", T("b,5"), [-1], over=("f32", "f16"), correction=1, keepdim=True),
    *rows("var.correction", T("b,5"), [-1], correction=0.5),
    *rows("var.correction", T("4,5"), [0]),
    *rows("var.correction", T("4,5"), correction=2),
    *rows("var.correction", T("b,1"), [1]),
    # Order.
    *rows("sort.default", T("b,6", distinct=True), over=NUMBERS),
    *rows("sort.default", T("b,6,2", -9, 9), 1, True),
    *rows("sort.default", T("b,6", -9, 9), 0),
    *rows("sort.default", T("b,6", distinct=True), over=("u8", "i8", "i16")),
    *rows("sort.default", T("3,6", -1, 1), -1, over=("i64",), variant="ties"),
    *rows("sort.default", T("8", special=True)),
    *rows("sort.default", T("8", special=True), -1, True),
    *rows("sort.default", T("")),
    *rows("sort.default", T("0,3")),
    *rows("sort.default", T("3,4"), over=("bool",)),
    *rows("topk.default", T("b,6", distinct=True), 3, over=NUMBERS),
    *rows("topk.default", T("b,6,2", -9, 9), 2, 1),
    *rows("topk.default", T("b,6", -9, 9), 2, -1, False),
    *rows("topk.default", T("b,6", -9, 9), 6),
    *rows("topk.default", T("b,6", distinct=True), 3, over=("u8", "i8", "i16")),
    *rows("topk.default", T(""), 1),
    *rows("topk.default", T("8", special=True), 4),
]
