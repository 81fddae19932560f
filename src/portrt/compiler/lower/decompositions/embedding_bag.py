"""Sums, means and maxima of embedding bags as reducing scatters.

torch.onnx writes nested loops over the bags and their elements, and returns zeros for the other
results of the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor

_SUM, _MEAN, _MAX = range(3)
_HALF = (torch.float16, torch.bfloat16)


def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    padding = padding_idx if padding_idx >= 0 else None
    return _bags(weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding)


def _embedding_bag_forward_only(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """Return for sums zeros of the size of `offsets`, of which `_embedding_bag` drops the last."""
    padding = padding_idx if padding_idx >= 0 else None
    found, bag_of, sizes, maxima = _bags(
        weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding
    )
    if mode == _SUM and include_last_offset:
        sizes, maxima = (torch.zeros_like(offsets, dtype=torch.int64) for _ in range(2))
    return found, bag_of, sizes, maxima


def _embedding_bag_padded(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int | None,
) -> Any:
    if padding_idx is not None and padding_idx < 0:
        padding_idx = padding_idx + weight.shape[0]
    return _bags(
        weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx
    )


def _bags(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    factors: Tensor | None,
    include_last_offset: bool,
    padding: int | None,
) -> Any:
    """Compute the bags [bags, width], and the operator's other results.

    Args:
        weight: [rows, width].
        indices: [count], rows of `weight`.
        offsets: [bags], or [bags + 1] with the last end: where each bag starts in `indices`.
        mode: `_SUM`, `_MEAN` or `_MAX`.
        factors: [count], a weight for each index.
        include_last_offset: Whether `offsets` has the last end.
        padding: The row that does not count, if any.

    Returns:
        The bags, the bag of each index, the sizes of the bags, and the rows of the maxima.
    """
    indices, offsets = indices.to(torch.int64), offsets.to(torch.int64)
    starts = offsets[:-1] if include_last_offset else offsets
    count = starts.shape[0]
    position = torch.arange(indices.shape[0], device=weight.device)
    bag_of = (starts.unsqueeze(0) <= position.unsqueeze(1)).sum(1) - 1
    # Padding goes to an additional bag, which is dropped.
    target = bag_of if padding is None else torch.where(indices == padding, count, bag_of)
    rows = aten.index_select(weight, 0, indices)
    rows = rows.float() if rows.dtype in _HALF else rows
    rows = rows if factors is None else rows * factors.to(rows.dtype).unsqueeze(1)
    sizes = target.new_zeros(count + 1).scatter_add(0, target, torch.ones_like(target))[:count]
    empty = rows.new_zeros(count + 1, weight.shape[1])
    # PyTorch's fast sums, also those of means, drop what follows the last offset; its others, and
    # all sizes, count it in the last bag.
    fast = mode != _MAX and padding is None and weight.dtype != torch.float64
    if fast and include_last_offset:
        target = torch.where(position >= offsets[-1], count, target)
    column = target.unsqueeze(1).expand(-1, weight.shape[1])
    if mode == _MAX:
        found = empty.scatter_reduce(0, column, rows, "amax", include_self=False)
        first = _first_position(found, column, rows, position)
        maxima = torch.where(sizes.unsqueeze(1) > 0, indices[first[:count]], 0)
        return found[:count].to(weight.dtype), bag_of, sizes, maxima
    found = empty.scatter_add(0, column, rows)[:count]
    if mode == _MEAN:
        found = found / sizes.clamp(min=1).unsqueeze(1).to(found.dtype)
        return found.to(weight.dtype), bag_of, sizes, sizes.clone()
    bag_of = bag_of[:0] if fast else bag_of
    nothing = torch.zeros_like(sizes)
    return found.to(weight.dtype), bag_of, nothing, nothing.clone()


def _first_position(found: Tensor, column: Tensor, rows: Tensor, position: Tensor) -> Tensor:
    """Return the first position whose value is the maximum of its bag; 0 for an empty bag."""
    end = rows.shape[0]
    is_largest = rows == torch.gather(found, 0, column)
    positions = torch.where(is_largest, position.unsqueeze(1), end)
    first = torch.full_like(found, end, dtype=torch.int64)
    first = first.scatter_reduce(0, column, positions, "amin", include_self=True)
    return torch.where(first == end, 0, first)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten._embedding_bag.default: _embedding_bag,
    aten._embedding_bag_forward_only.default: _embedding_bag_forward_only,
    aten.embedding_bag.padding_idx: _embedding_bag_padded,
}
