"""Products, convolutions, attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fuzz.builder import Builder, NotHereError
from fuzz.values import FLOATS, NUMBERS

Draw = Callable[[Builder], None]


def _matmul(b: Builder) -> None:
    x = b.value(NUMBERS, (1, 4))
    inner = b.dims_of(x)[-1]
    rank = b.int(1, 3)
    dims = [inner] if rank == 1 else [inner, b.int(1, 4)]
    if rank == 3 and b.rank(x) > 2:
        dims = [*b.dims_of(x)[:-2], *dims]
    b.add("torch.matmul", x, b.new(b.dtype(x), dims))


def _bmm(b: Builder) -> None:
    x = b.value(NUMBERS, (3, 3))
    dims = b.dims_of(x)
    y = b.new(b.dtype(x), [dims[0], dims[2], b.int(1, 4)])
    if b.boolean():
        b.add("torch.bmm", x, y)
    else:
        bias = b.new(b.dtype(x), [b.least(y, 2)])
        b.add("torch.baddbmm", bias, x, y, beta=b.choice((1, 0, 2)), alpha=b.choice((1, 2)))


def _addmm(b: Builder) -> None:
    x = b.value(NUMBERS, (2, 2))
    y = b.new(b.dtype(x), [b.dims_of(x)[1], b.int(1, 4)])
    bias = b.new(b.dtype(x), [b.dims_of(y)[1]])
    b.add("torch.addmm", bias, x, y, beta=b.choice((1, 0, 2)), alpha=b.choice((1, 2)))


def _linear(b: Builder) -> None:
    x = b.value(FLOATS, (1, 4))
    size = b.size(x, -1)
    if not isinstance(size, int):
        raise NotHereError
    out = b.int(1, 5)
    weight = b.new(b.dtype(x), [out, size])
    bias = [b.new(b.dtype(x), [out])] if b.boolean() else []
    b.add("F.linear", x, weight, *bias)


def _vectors(b: Builder) -> None:
    x = b.value(NUMBERS, (1, 1))
    if b.boolean():
        b.add("torch.dot", x, b.same(x))
    else:
        b.add("torch.outer", x, b.value((b.dtype(x),), (1, 1)))


def _einsum(b: Builder) -> None:
    x = b.value(FLOATS, (2, 2))
    text = b.choice(("ij,ij->i", "ij,ij->", "ij,ij->ij", "ij,kj->ik", "ij,ik->jk"))
    b.add("torch.einsum", text, x, b.same(x))


def _convolution(rank: int, transposed: bool, b: Builder) -> None:
    x = b.value(FLOATS, (rank + 2, rank + 2))
    channels = b.size(x, 1)
    if not isinstance(channels, int) or channels == 0:
        raise NotHereError
    groups = channels if b.rarely() else 1
    out = groups * b.int(1, 2)
    kernel = [b.int(1, 3) for _ in range(rank)]
    shape = [channels, out // groups] if transposed else [out, channels // groups]
    weight = b.new(b.dtype(x), [*shape, *kernel])
    bias = b.new(b.dtype(x), [out]) if b.boolean() else None
    given = {"stride": b.int(1, 2), "padding": b.int(0, 2), "groups": groups}
    if b.boolean():
        given["dilation"] = b.int(1, 2)
    if transposed and given["stride"] == 2 and b.boolean():
        given["output_padding"] = 1
    b.add(f"F.conv{'_transpose' if transposed else ''}{rank}d", x, weight, bias, **given)


def _attention(b: Builder) -> None:
    x = b.value(FLOATS, (3, 4))
    dims = b.dims_of(x)
    dims[-2] = b.int(1, 4)
    key, value = b.new(b.dtype(x), dims), b.new(b.dtype(x), dims)
    given = {}
    kind = b.int(0, 2)
    if kind == 1:
        given["is_causal"] = True
    if kind == 2:
        import torch

        dtype = b.choice((torch.bool, b.dtype(x)))
        given["attn_mask"] = b.new(dtype, [b.dims_of(x)[-2], dims[-2]])
    b.add("F.scaled_dot_product_attention", x, key, value, **given)


def _cdist(b: Builder) -> None:
    x = b.value(FLOATS[:2], (2, 3))
    dims = b.dims_of(x)
    dims[-2] = b.int(1, 4)
    b.add("torch.cdist", x, b.new(b.dtype(x), dims), p=b.choice((2.0, 1.0, float("inf"), 0.0)))


OPERATORS: dict[str, Draw] = {
    "matmul": _matmul,
    "bmm": _bmm,
    "addmm": _addmm,
    "linear": _linear,
    "vectors": _vectors,
    "einsum": _einsum,
    **{f"conv{rank}d": partial(_convolution, rank, False) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": partial(_convolution, rank, True) for rank in (1, 2)},
    "attention": _attention,
    "cdist": _cdist,
}
