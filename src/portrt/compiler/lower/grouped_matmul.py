"""Grouped matrix product of mixtures of experts: each group of rows has its own matrix.

ONNX has no such operator, and the number of rows of each group depends on data. So the rows are
laid out in tiles of a fixed height, each of which belongs to one expert. The number of tiles is
bounded by the number of rows, so that one batched product computes all of them; it costs at most
one additional tile per expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

# Rows of a tile. Larger tiles pad more where experts have few rows; smaller ones load an expert's
# matrix more often.
_TILE = 32


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return operator -> decomposition for the operators that are registered in this process."""
    found: dict[Any, Callable[..., Any]] = {aten._grouped_mm.default: _grouped_mm}
    # transformers calls its own operator for the dtypes in which torch cannot trace _grouped_mm.
    fallback = getattr(torch.ops.transformers, "grouped_mm_fallback", None)
    if fallback is not None:
        found[fallback.default] = grouped_matmul
    return found


def _grouped_mm(
    rows: torch.Tensor,
    matrices: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Any:
    if offs is None or rows.dim() != 2 or matrices.dim() != 3:
        return NotImplemented
    made = grouped_matmul(rows, matrices, offs)
    if bias is not None:
        return NotImplemented
    return made if out_dtype is None else made.to(out_dtype)


def grouped_matmul(rows: torch.Tensor, matrices: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Multiply rows up to ends[0] by matrices[0], those up to ends[1] by matrices[1], and so on.

    Args:
        rows: [count, inner].
        matrices: [groups, inner, outer].
        ends: [groups], the end of each group, in ascending order; int32 or int64.

    Returns:
        [count, outer]; rows after the last end are zero.
    """
    count, groups = rows.shape[0], matrices.shape[0]
    ends = ends.to(torch.int64)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    tiles = torch.div(ends - starts + (_TILE - 1), _TILE, rounding_mode="floor")
    last_tile = torch.cumsum(tiles, 0)
    first_tile = last_tile - tiles

    sym_min: Callable[..., Any] = torch.sym_min
    max_tiles = sym_min(count, count // _TILE + groups)
    tile = torch.arange(max_tiles, device=rows.device)
    group = _group_of(tile, last_tile).clamp(max=groups - 1)  # unused tiles take any group
    first_row = starts[group] + (tile - first_tile[group]) * _TILE
    source = first_row[:, None] + torch.arange(_TILE, device=rows.device)
    laid_out = rows[source.clamp(max=count - 1)]
    made = torch.bmm(laid_out, matrices[group])

    row = torch.arange(count, device=rows.device)
    group = _group_of(row, ends)
    is_in = group < groups
    group = group.clamp(max=groups - 1)
    position = torch.where(is_in, first_tile[group] * _TILE + row - starts[group], 0)
    result = made.reshape(max_tiles * _TILE, matrices.shape[2])[position]
    return torch.where(is_in[:, None], result, 0.0)


def _group_of(index: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Count the groups that end at or before each index."""
    return (ends[None, :] <= index[:, None]).sum(1)
