"""Gathers and scatters by indices and masks: half precision, means, and differing shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor

# Start of a maximum or minimum; torch.onnx starts with the lowest and largest finite numbers.
_WORST = {"amax": -math.inf, "amin": math.inf}


def _cut(index: Tensor, source: Tensor) -> Tensor:
    """Cut the source to the shape of the index: ONNX requires equal shapes."""
    for axis, size in enumerate(index.shape):
        if source.shape[axis] != size:
            source = source.narrow(axis, 0, size)
    return source


def _differs(index: Tensor, source: Tensor) -> bool:
    return any(a != b for a, b in zip(index.shape, source.shape, strict=True))


def _scatter(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
    if _differs(index, source):
        return torch.scatter(x, dim, index, _cut(index, source))
    return NotImplemented


def _scatter_value(x: Tensor, dim: int, index: Tensor, value: float) -> Any:
    """Scatter bfloat16 as float32: torch.onnx cannot write a bfloat16 constant to scatter."""
    if x.dtype != torch.bfloat16:
        return NotImplemented
    return torch.scatter(x.float(), dim, index, value).to(x.dtype)


def _scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
    if x.dtype == torch.float16:  # ONNX Runtime has no kernel that adds float16 by index
        return torch.scatter_add(x.float(), dim, index, source.float()).to(x.dtype)
    if index.dim() < x.dim():  # a scalar index of a vector
        return torch.scatter_add(x, dim, index.reshape(1), source.reshape(1))
    if _differs(index, source):
        return torch.scatter_add(x, dim, index, _cut(index, source))
    return NotImplemented


def _scatter_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Any:
    if x.dtype == torch.float16:  # ONNX Runtime has no kernel that reduces float16 by index
        wide = torch.scatter_reduce(
            x.float(), dim, index, source.float(), reduce, include_self=include_self
        )
        return wide.to(x.dtype)
    if _differs(index, source):
        source = _cut(index, source)
        return torch.scatter_reduce(x, dim, index, source, reduce, include_self=include_self)
    if reduce == "mean":
        return _scatter_mean(x, dim, index, source, include_self=include_self)
    if not include_self and reduce in _WORST and x.dtype.is_floating_point and x.dim():
        x = torch.scatter(x, dim, index, _WORST[reduce])
        return torch.scatter_reduce(x, dim, index, source, reduce, include_self=True)
    return NotImplemented


def _scatter_mean(x: Tensor, dim: int, index: Tensor, source: Tensor, *, include_self: bool) -> Any:
    """Divide the sum by the counts: torch.onnx translates "mean" to a sum."""
    count = torch.ones_like(x)
    if not include_self:
        x, count = torch.scatter(x, dim, index, 0), torch.scatter(count, dim, index, 0)
    total = torch.scatter_add(x, dim, index, source)
    count = torch.scatter_add(count, dim, index, torch.ones_like(source)).clamp(min=1)
    if x.dtype.is_floating_point:
        return total / count
    return torch.div(total, count, rounding_mode="floor")


def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Any:
    """Convert int32 indices: ONNX's ScatterND takes int64.

    float16 is accumulated in float32: ONNX Runtime has no kernel that adds float16 by index.
    """
    wide = _wide_indices(indices)
    if accumulate and x.dtype == torch.float16:
        return aten.index_put(x.float(), wide, values.float(), True).to(x.dtype)
    return NotImplemented if wide is indices else aten.index_put(x, wide, values, accumulate)


def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Any:
    """Give the n-th true element the n-th element of the source, with static sizes.

    torch.onnx writes NonZero of the mask, whose size is data-dependent.
    """
    if any(type(size) is int and size == 0 for size in source.shape):
        return NotImplemented  # there is no element to gather
    broadcast: Callable[..., Any] = torch.broadcast_tensors
    x, mask = broadcast(x, mask)
    order = torch.cumsum(mask.reshape(-1).to(torch.int64), 0) - 1
    taken = aten.index_select(source.reshape(-1), 0, order.clamp(min=0)).reshape(x.shape)
    return torch.where(mask, taken, x)


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    """Convert int32 indices: ONNX's GatherND takes int64."""
    wide = _wide_indices(indices)
    return NotImplemented if wide is indices else aten.index(x, wide)


def _wide_indices(indices: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """Convert int32 indices to int64; returns the argument itself if there are none."""
    if not any(index is not None and index.dtype == torch.int32 for index in indices):
        return indices
    return [i.to(torch.int64) if i is not None and i.dtype == torch.int32 else i for i in indices]


def _masked_select(x: Tensor, mask: Tensor) -> Any:
    """Index by the mask: torch.onnx has no translation for masked_select."""
    x, mask = aten.broadcast_tensors([x, mask])
    return aten.index(x, [mask])


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.scatter.src: _scatter,
    aten.scatter.value: _scatter_value,
    aten.scatter_add.default: _scatter_add,
    aten.scatter_reduce.two: _scatter_reduce,
    aten.index_put.default: _index_put,
    aten.index.Tensor: _index,
    aten.masked_select.default: _masked_select,
    aten.masked_scatter.default: _masked_scatter,
}
