"""Tensors picked from, and written into, by tensors of indices."""

from __future__ import annotations

import torch

from ops.case import ALL, EVERY, FLOATS, NUMBERS, T, rows

F = ("f32", "f16", "bf16", "i64", "bool")
aten = torch.ops.aten

CASES = [
    *rows("embedding.default", T("5,3"), T("i64:b,s", 0, 4), over=FLOATS),
    *rows("embedding.default", T("5,3"), T("i32:b", 0, 4)),
    *rows("embedding.default", T("5,3"), T("i64:", 0, 4)),
    *rows("embedding.default", T("5,3"), T("i64:0", 0, 4)),
    *rows("embedding.default", T("5,3"), T("i64:b,2", 0, 4), 1),
    *rows(
        "aten._embedding_bag.default",
        T("6,3"),
        T("i64:7", 0, 5),
        T("i64:3", 0, 0),
        variant="first in all",
        function=lambda w, i, o: aten._embedding_bag(w, i, o)[0],
    ),
    *[
        row
        for mode in (0, 1, 2)
        for row in rows(
            "aten._embedding_bag.default",
            T("6,3"),
            T("i64:8", 0, 5),
            variant=f"mode {mode}",
            over=("f32", "f16"),
            function=lambda w, i, mode=mode: aten._embedding_bag(
                w, i, torch.tensor([0, 3, 3, 5]), False, mode
            )[0],
        )
    ],
    *rows(
        "aten._embedding_bag.default",
        T("6,3"),
        T("i64:8", 0, 5),
        T("8"),
        variant="weights",
        function=lambda w, i, p: aten._embedding_bag(
            w, i, torch.tensor([0, 3, 5]), False, 0, False, p
        )[0],
    ),
    *rows(
        "aten._embedding_bag.default",
        T("6,3"),
        T("i64:8", 0, 5),
        variant="last offset",
        function=lambda w, i: aten._embedding_bag(
            w, i, torch.tensor([0, 3, 8]), False, 0, False, None, True
        )[0],
    ),
    *[
        row
        for mode in (0, 1, 2)
        for padding in (-1, 2)
        for row in rows(
            "aten._embedding_bag.default",
            T("6,3"),
            T("i64:8", 0, 5),
            variant=f"all results, mode {mode}, padding {padding}",
            function=lambda w, i, mode=mode, padding=padding: aten._embedding_bag(
                w, i, torch.tensor([0, 3, 3, 5]), False, mode, False, None, False, padding
            ),
        )
    ],
    *rows(
        "nn.functional.embedding_bag",
        T("6,3"),
        T("i64:b,4", 0, 5),
        variant="weight first",
        function=lambda w, i: torch.nn.functional.embedding_bag(i, w, mode="mean"),
    ),
    *rows("gather.default", T("b,4"), 1, T("i64:b,2", 0, 3), over=F),
    *rows("gather.default", T("3,4,2"), 0, T("i64:2,4,2", 0, 2), over=("f32", "i32")),
    *rows("gather.default", T("3,4,2"), -2, T("i64:2,3,1", 0, 3)),
    *rows("gather.default", T("4"), 0, T("i64:", 0, 3)),
    *rows("gather.default", T(""), 0, T("i64:", 0, 0)),
    *rows("gather.default", T("b,4"), 1, T("i64:0,2", 0, 3)),
    *rows("index.Tensor", T("5,4"), [T("i64:b", 0, 4)], over=ALL),
    *rows("index.Tensor", T("5,4"), [T("i64:b", -5, 4)], variant="negative"),
    *rows("index.Tensor", T("5,4"), [None, T("i64:b", -4, 3)], over=F),
    *rows("index.Tensor", T("5,4,3"), [T("i64:b", 0, 4), T("i64:b", 0, 3)]),
    *rows("index.Tensor", T("5,4,3"), [T("i64:b,1", 0, 4), T("i64:2", 0, 3)]),
    *rows(
        "index.Tensor", T("5,4,3"), [T("i64:b", 0, 4), None, T("i64:b", 0, 2)], over=("f32", "i64")
    ),
    *rows("index.Tensor", T("5,4,3"), [None, T("i64:2,b", 0, 3), T("i64:b", 0, 2)]),
    *rows("index.Tensor", T("5,4,3"), [None, None, T("i64:b", 0, 2)]),
    *rows("index.Tensor", T("5,4"), [T("i32:b", 0, 4)], over=EVERY),
    *rows("index.Tensor", T("5,4"), [T("i32:b", -5, 4), T("i64:b", 0, 3)]),
    *rows("index.Tensor", T("5,4"), [T("i64:", 0, 4)]),
    *rows("index.Tensor", T("b,s"), [T("i64:2", 0, 0), T("i64:2", 0, 0)]),
    *rows(
        "aten.index.Tensor",
        T("b,3"),
        T("bool:b,3"),
        variant="boolean",
        function=lambda x, m: x[m],
        over=("f32", "f16", "bf16", "i64", "bool"),
    ),
    *rows(
        "aten.index.Tensor",
        T("b,3,4"),
        T("bool:b"),
        variant="boolean rows",
        function=lambda x, m: x[m],
    ),
    *rows(
        "aten.index.Tensor",
        T("b,5,4"),
        T("bool:5"),
        variant="boolean columns",
        function=lambda x, m: x[:, m],
    ),
    *rows(
        "aten.index.Tensor",
        T("b,5"),
        variant="nothing and everything",
        function=lambda x: (x[x > 9], x[x < 9], x[x > 9].sum()),
    ),
    *rows("masked_select.default", T("b,4"), T("bool:b,4"), over=("f32", "f16", "i64")),
    *rows("masked_select.default", T("b,1,4"), T("bool:3,1"), variant="broadcast"),
    *[
        row
        for accumulate in (False, True)
        for row in (
            *rows(
                "aten.index_put.default",
                T("5,4"),
                T("3,4"),
                variant=f"rows {accumulate}",
                over=F if not accumulate else ("f32", "f16", "i64"),
                function=lambda x, v, a=accumulate: aten.index_put(
                    x, [torch.tensor([0, 3, 1])], v, a
                ),
            ),
            *rows(
                "aten.index_put.default",
                T("5,4"),
                T(""),
                variant=f"one number {accumulate}",
                function=lambda x, v, a=accumulate: aten.index_put(
                    x, [torch.tensor([0, -1])], v, a
                ),
            ),
            *rows(
                "aten.index_put.default",
                T("b,4,5"),
                T("b,2"),
                variant=f"between {accumulate}",
                function=lambda x, v, a=accumulate: aten.index_put(
                    x, [None, torch.tensor([0, 2]), torch.tensor([1, 4])], v, a
                ),
            ),
            *rows(
                "aten.index_put.default",
                T("b,4,5"),
                T("b,2,5"),
                variant=f"columns {accumulate}",
                function=lambda x, v, a=accumulate: aten.index_put(
                    x, [None, torch.tensor([3, 2])], v, a
                ),
            ),
            *rows(
                "aten.index_put.default",
                T("5,4"),
                T("3,2"),
                variant=f"grid {accumulate}",
                function=lambda x, v, a=accumulate: aten.index_put(
                    x, [torch.tensor([[0], [3], [1]]), torch.tensor([1, 2])], v, a
                ),
            ),
            *rows(
                "aten.index_put.default",
                T("5,4,3"),
                T("2,4"),
                variant=f"apart {accumulate}",
                function=lambda x, v, a=accumulate: aten.index_put(
                    x, [torch.tensor([0, 2]), None, torch.tensor([1, 2])], v, a
                ),
            ),
        )
    ],
    *[
        row
        for accumulate in (False, True)
        for row in rows(
            "aten.index_put.default",
            T("5,4"),
            T("3,4"),
            T("i32:3", 0, 4) if accumulate else T("i32:3", 2, 2),
            variant=f"int32 rows {accumulate}",
            over=EVERY,
            function=lambda x, v, i, a=accumulate: aten.index_put(
                x, [i + (0 if a else torch.arange(3, dtype=torch.int32))], v, a
            ),
        )
    ],
    *rows(
        "aten.index_put.default",
        T("b,4,5"),
        T("b,2"),
        T("i32:2", 0, 0),
        T("i64:2", 1, 4),
        variant="int32 and int64",
        function=lambda x, v, i, j: aten.index_put(
            x, [None, i + torch.tensor([0, 2], dtype=torch.int32), j], v
        ),
    ),
    *rows(
        "aten.index_put.default",
        T("5,4"),
        T("4,4"),
        variant="same row twice",
        function=lambda x, v: aten.index_put(x, [torch.tensor([0, 3, 0, 3])], v, True),
    ),
    *rows(
        "aten.index_put.default",
        T("b,3"),
        T("bool:b,3"),
        T(""),
        variant="boolean",
        over=F,
        function=lambda x, m, v: aten.index_put(x, [m], v),
    ),
    *rows(
        "aten.index_put.default",
        T("b,3"),
        T("bool:b"),
        T("3"),
        variant="boolean rows",
        function=lambda x, m, v: aten.index_put(x, [m], v),
    ),
    *rows("index_select.default", T("5,4"), 0, T("i64:b", 0, 4), over=F),
    *rows("index_select.default", T("5,b"), -1, T("i64:2", 0, 0)),
    *rows("index_select.default", T("5,4"), 1, T("i32:b", 0, 3), over=("f32", "i32")),
    *rows("index_select.default", T("5,4"), 1, T("i64:", 0, 3)),
    *rows("index_select.default", T("5,4"), 1, T("i64:0", 0, 3)),
    *rows("index_select.default", T(""), 0, T("i64:1", 0, 0)),
    *rows("masked_scatter.default", T("4,3"), T("bool:4,3"), T("12"), over=F),
    *rows("masked_scatter.default", T("b,3"), T("bool:b,1"), T("20,4")),
    *rows("masked_scatter.default", T("b,s"), T("bool:b,s"), T("b,s")),
    *rows("nonzero.default", T("4,3", 0, 1), over=("i64", "f32", "bool")),
    *rows(
        "nonzero.default",
        T("b,s,2", 0, 1),
        over=("i32", "f16", "bf16", "f64", "bool"),
        lacks=("f64",),
    ),
    *rows("nonzero.default", T("bool:"), variant="scalar", stays="depends on data"),
    *rows(
        "aten.nonzero.default",
        T("b,4"),
        variant="nothing and everything",
        function=lambda x: (torch.nonzero(x > 9), torch.nonzero(x < 9), torch.nonzero(x > 9).sum()),
    ),
    *rows(
        "aten._unique2.default",
        T("i64:b,4", -2, 2),
        variant="all results",
        function=lambda x: torch.unique(x, return_inverse=True, return_counts=True),
    ),
    *rows("aten._unique2.default", T("b,4"), variant="floats", function=torch.unique),
    *[
        row
        for op, last in (("scatter.src", T("b,2")), ("scatter_add.default", T("b,2")))
        for row in (
            *rows(
                f"aten.{op}",
                T("b,4"),
                last,
                over=F if op == "scatter.src" else NUMBERS,
                variant="columns",
                function=lambda x, v, op=op: getattr(aten, op.split(".")[0])(
                    x, 1, torch.tensor([[1, 3]]).expand(x.shape[0], 2), v
                ),
            ),
            *rows(
                f"aten.{op}",
                T("4,3"),
                T("2,3"),
                variant="rows",
                over=("f32", "i64"),
                function=lambda x, v, op=op: getattr(aten, op.split(".")[0])(
                    x, -2, torch.tensor([[0, 3, 1], [2, 1, 0]]), v
                ),
            ),
            *rows(
                f"aten.{op}",
                T("4,3"),
                T("4,3"),
                variant="smaller index",
                function=lambda x, v, op=op: getattr(aten, op.split(".")[0])(
                    x, 0, torch.tensor([[0, 3], [2, 1]]), v
                ),
            ),
            *rows(
                f"aten.{op}",
                T("4"),
                T(""),
                variant="scalars",
                function=lambda x, v, op=op: getattr(aten, op.split(".")[0])(
                    x, 0, torch.tensor(2), v
                ),
            ),
            *rows(
                f"aten.{op}",
                T("4,3"),
                T("0,3"),
                variant="empty",
                function=lambda x, v, op=op: getattr(aten, op.split(".")[0])(
                    x, 0, torch.zeros(0, 3, dtype=torch.int64), v
                ),
            ),
        )
    ],
    *rows(
        "scatter_add.default",
        T("3,4"),
        1,
        T("i64:3,6", 0, 3),
        T("3,6"),
        over=("f32", "f16", "bf16", "i64"),
    ),
    *rows("scatter.value", T("b,4"), 1, T("i64:b,2", 0, 3), 7, over=F),
    *rows("scatter.value", T("3,4"), -2, T("i64:2,4", 0, 2), 0.5),
    *rows("scatter.value", T("4"), 0, T("i64:", 0, 3), 2),
    *rows("scatter.value", T("4,3"), 0, T("i64:0,3", 0, 3), 2),
    *[
        row
        for reduce in ("sum", "prod", "amax", "amin", "mean")
        for row in (
            *rows(
                "scatter_reduce.two",
                T("b,4"),
                1,
                T("i64:b,6", 0, 3),
                T("b,6"),
                reduce,
                over=("f32", "f16", "bf16"),
            ),
            *rows(
                "scatter_reduce.two",
                T("3,4", -5, 5),
                0,
                T("i64:2,4", 0, 2),
                T("3,4", -5, 5),
                reduce,
                over=("i64", "i32"),
                variant=f"smaller index {reduce}",
            ),
            *rows(
                "scatter_reduce.two",
                T("b,4"),
                1,
                T("i64:b,6", 0, 3),
                T("b,6"),
                reduce,
                include_self=False,
                variant=f"without self {reduce}",
                over=("f32", "f16"),
            ),
        )
    ],
]
