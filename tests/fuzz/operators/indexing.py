"""Gathers, scatters, masks, lookups."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fuzz.builder import Builder, NotHereError
from fuzz.graph import Ref
from fuzz.values import FLOATS, NUMBERS

Draw = Callable[[Builder], None]
_INDICES = (torch.int64, torch.int32)


def _index(b: Builder, dims: list[int | str], count: int, dtype: torch.dtype = torch.int64) -> Ref:
    if count == 0:
        raise NotHereError
    return b.new(dtype, dims, f"index:{count}")


def _index_select(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    index = _index(b, [b.int(0, 4)], b.least(x, dim), b.choice(_INDICES))
    b.add("torch.index_select", x, dim, index)


def _gather(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    dims = b.dims_of(x)
    dims[dim] = b.int(1, 4)
    name = b.choice(("gather", "take_along_dim"))
    index = _index(b, dims, b.least(x, dim))
    b.add(f"torch.{name}", x, *((dim, index) if name == "gather" else (index, dim)))


def _scatter(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    dims = b.dims_of(x)
    dims[dim] = b.int(1, 3)
    name = b.choice(("scatter_add", "scatter_reduce", "scatter"))
    least = b.least(x, dim)
    if name == "scatter":  # the order of writes to one element is not defined
        dims[dim] = 1
        if b.boolean():
            b.add("torch.scatter", x, dim, _index(b, dims, least), b.scalar(b.dtype(x)))
            return
    index, source = _index(b, dims, least), b.new(b.dtype(x), dims)
    if name == "scatter_reduce":
        kind = b.choice(("sum", "amax", "amin", "prod", "mean"))
        b.add("torch.scatter_reduce", x, dim, index, source, kind, include_self=b.boolean())
    else:
        b.add(f"torch.{name}", x, dim, index, source)


def _index_add(b: Builder) -> None:
    x = b.any((1, 4))
    dim = b.dim(x)
    dims = b.dims_of(x)
    dims[dim] = b.int(1, 3)
    index = _index(b, [dims[dim]], b.least(x, dim))
    b.add("torch.index_add", x, dim, index, b.new(b.dtype(x), dims))


def _index_fill(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    index = _index(b, [b.int(1, 3)], b.least(x, dim))
    b.add("torch.index_fill", x, dim, index, b.scalar(b.dtype(x)))


def _advanced_index(b: Builder) -> None:
    """x[i], x[:, i], x[i, j]; some indices are counted from the end."""
    x = b.any((1, 5))
    kind = b.int(0, 2) if b.rank(x) > 1 else 0
    if kind == 1:
        b.add("special.getitem", x, (None, None, None), _index(b, [b.int(1, 3)], b.least(x, 1)))
    elif kind == 2:
        first = _index(b, [b.int(1, 3)], b.least(x, 0))
        b.add("special.getitem", x, first, _index(b, [1], b.least(x, 1)))
    else:
        dims: list[int | str] = [b.int(1, 3) for _ in range(b.int(0, 2))]
        b.add("special.getitem", x, _index(b, dims, b.least(x, 0)))


def _index_put(b: Builder) -> None:
    x = b.any((1, 4))
    dims = b.dims_of(x)[1:]
    index = _index(b, [1], b.least(x, 0))
    accumulate = b.dtype(x) != torch.bool and b.boolean()
    b.add("torch.index_put", x, (index,), b.new(b.dtype(x), [1, *dims]), accumulate)


def _masked_fill(b: Builder) -> None:
    x = b.any()
    b.add("torch.masked_fill", x, b.like(x, (torch.bool,)), b.scalar(b.dtype(x)))


def _slice_scatter(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    dims = b.dims_of(x)
    least = b.least(x, dim)
    if least == 0:
        raise NotHereError
    start = b.int(0, least - 1)
    dims[dim] = b.int(1, least - start)
    b.add("torch.slice_scatter", x, b.new(b.dtype(x), dims), dim, start, start + dims[dim])


def _select_scatter(b: Builder) -> None:
    x = b.any((1, 5))
    dim = b.dim(x)
    dims = b.dims_of(x)
    del dims[dim]
    least = b.least(x, dim)
    place = b.choice(range(-least, least))
    b.add("torch.select_scatter", x, b.new(b.dtype(x), dims), dim, place)


def _take(b: Builder) -> None:
    x = b.any((0, 4))
    count = min(value.numel() for value in b._of(x))
    b.add("torch.take", x, _index(b, [b.int(1, 4)], count))


def _one_hot(b: Builder) -> None:
    index = _index(b, [b.int(1, 4) for _ in range(b.int(0, 2))], 4)
    b.add("F.one_hot", index, b.int(4, 6))


def _embedding(b: Builder) -> None:
    weight = b.new(b.choice(FLOATS), [b.int(1, 6), b.int(1, 4)])
    rows = b.least(weight, 0)
    index = _index(b, [b.int(1, 4) for _ in range(b.int(0, 3))], rows, b.choice(_INDICES))
    b.add("F.embedding", index, weight, **({"padding_idx": 0} if b.rarely() else {}))


def _buckets(b: Builder) -> None:
    x = b.value(NUMBERS)
    borders = b.new(torch.float32, [b.int(1, 5)], "normal")
    step = len(b.steps)
    b.add("torch.sort", borders, results=2)
    assert len(b.steps) == step + 1
    b.add("torch.bucketize", x, Ref(len(b._values) - 2), right=b.boolean())


OPERATORS: dict[str, Draw] = {
    "index_select": _index_select,
    "gather": _gather,
    "scatter": _scatter,
    "index_add": _index_add,
    "index_fill": _index_fill,
    "advanced_index": _advanced_index,
    "index_put": _index_put,
    "masked_fill": _masked_fill,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "take": _take,
    "one_hot": _one_hot,
    "embedding": _embedding,
    "bucketize": _buckets,
}
