"""Tensors made from sizes and numbers; random ones stay in PyTorch."""

from __future__ import annotations

import torch

from ops.case import ALL, T, rows

aten = torch.ops.aten
_KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32)
_RANDOM = "random numbers"


def _after(made):  # type: ignore[no-untyped-def]
    """A tensor that depends on sizes alone, added to one that depends on an input."""
    return lambda x: made(x) + x.sum().to(made(x).dtype) * 0


CASES = [
    *[
        row
        for dtype in _KINDS
        for row in (
            *rows(
                "aten.arange.start_step",
                T("b,3"),
                variant=f"to a size {dtype}",
                function=_after(
                    lambda x, d=dtype: aten.arange.start_step(0, x.shape[0], 1, dtype=d)
                ),
            ),
            *rows(
                "aten.arange.start_step",
                T("2"),
                variant=f"numbers {dtype}",
                function=_after(lambda x, d=dtype: aten.arange.start_step(5, -3, -2, dtype=d)),
            ),
            *rows(
                "aten.full.default",
                T("b,3"),
                variant=f"{dtype}",
                function=_after(lambda x, d=dtype: aten.full([x.shape[0], 2], 3, dtype=d)),
            ),
            *rows(
                "aten.scalar_tensor.default",
                T("b,3"),
                variant=f"{dtype}",
                function=lambda x, d=dtype: x.to(d) + aten.scalar_tensor(2, dtype=d),
            ),
            *rows(
                "aten.full_like.default",
                T("b,3"),
                variant=f"to {dtype}",
                function=_after(lambda x, d=dtype: aten.full_like(x, 3, dtype=d)),
            ),
        )
    ],
    *rows(
        "aten.arange.start_step",
        T("b"),
        variant="fractions",
        function=_after(lambda x: aten.arange.start_step(0.5, 3.1, 0.4)),
    ),
    *rows(
        "aten.arange.start_step",
        T("b"),
        variant="from a size",
        function=_after(lambda x: aten.arange.start_step(x.shape[0], x.shape[0] + 4)),
    ),
    *rows(
        "aten.arange.start_step",
        T("b"),
        variant="steps",
        function=_after(lambda x: aten.arange.start_step(0, x.shape[0] * 3, 3)),
    ),
    *rows(
        "aten.full.default",
        T("b"),
        variant="infinite",
        function=_after(lambda x: aten.full([x.shape[0], x.shape[0]], float("-inf"))),
        compares=False,
    ),
    *rows(
        "aten.full.default",
        T("b"),
        variant="bool",
        function=lambda x: aten.full([x.shape[0]], True) & (x > 0),
    ),
    *rows(
        "aten.full.default", T("b"), variant="scalar", function=_after(lambda x: aten.full([], 2.5))
    ),
    *rows("full_like.default", T("b,3"), 2, over=ALL),
    *rows("full_like.default", T(""), 2.5),
    *rows("full_like.default", T("0,3"), 2),
    *rows(
        "aten.empty.memory_format",
        T("b,3"),
        over=("f32", "i64"),
        variant="filled",
        function=lambda x: (
            aten.fill(aten.empty.memory_format([x.shape[0], 2], dtype=x.dtype), 2) * x[:, :2]
        ),
    ),
    *rows(
        "aten.empty.memory_format",
        T("b,3"),
        variant="written over",
        function=lambda x: aten.copy(aten.empty.memory_format([x.shape[0], 3]), x) * 2,
    ),
    *rows(
        "aten.empty_strided.default",
        T("b,3"),
        over=("f32", "i64"),
        variant="filled",
        function=lambda x: (
            aten.fill(aten.empty_strided([x.shape[0], 3], [3, 1], dtype=x.dtype), 2) * x
        ),
    ),
    *rows(
        "aten.empty_strided.default",
        T("3,2"),
        variant="transposed",
        function=lambda x: aten.copy(aten.empty_strided([3, 2], [1, 3]), x) * 2,
    ),
    *rows(
        "aten.rand.default",
        T("b,3"),
        variant="added",
        function=lambda x: x + aten.rand([x.shape[0], 3]),
        stays=_RANDOM,
        compares=False,
    ),
    *rows(
        "aten.randn.default",
        T("b,3"),
        variant="added",
        function=lambda x: x + aten.randn([x.shape[0], 3]),
        stays=_RANDOM,
        compares=False,
    ),
    *rows(
        "aten.randperm.default",
        T("4,3"),
        variant="picked",
        function=lambda x: x[aten.randperm(4)],
        stays=_RANDOM,
        compares=False,
    ),
    *rows("native_dropout.default", T("b,3"), 0.5, False, over=("f32", "f16"), variant="eval"),
    *rows(
        "native_dropout.default",
        T("b,3"),
        0.5,
        True,
        stays=_RANDOM,
        compares=False,
        variant="train",
    ),
    *rows("aten.sym_size.int", T("b,3"), variant="multiplied", function=lambda x: x * x.shape[0]),
    *rows(
        "aten.sym_numel.default",
        T("b,3"),
        variant="divided",
        function=lambda x: x / aten.sym_numel(x),
    ),
    *rows(
        "aten.sym_stride.int",
        T("b,3"),
        variant="added",
        function=lambda x: x + aten.sym_stride(x, 0),
    ),
    *rows(
        "aten.sym_storage_offset.default",
        T("b,3"),
        variant="added",
        function=lambda x: x + aten.sym_storage_offset(x),
    ),
    *rows(
        "aten._local_scalar_dense.default",
        T("b,3"),
        T("i64:", 1, 3),
        variant="added",
        function=lambda x, n: x + n.item(),
        stays="depends on data",
    ),
]
