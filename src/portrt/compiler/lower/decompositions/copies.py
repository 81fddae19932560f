"""Copies and shapes that torch.onnx or ONNX handles differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten


def _copy(x: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Cast and expand the source: torch.onnx only casts it."""
    return source.to(x.dtype).expand(x.shape).clone()


def _squeeze(x: torch.Tensor, dim: int) -> Any:
    """Keep a dimension that is not 1 as PyTorch does: ONNX's Squeeze fails on it."""
    if x.dim() == 0 or x.shape[dim] != 1:
        return x.view(x.shape)
    return NotImplemented


def _diagonal(x: torch.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> torch.Tensor:
    """Gather the diagonal: torch.onnx adds products with an identity matrix, NaN beside NaN."""
    x, dtype = x.movedim((dim1, dim2), (-2, -1)), x.dtype
    rows, columns = x.shape[-2:]
    row, column = max(-offset, 0), max(offset, 0)
    # A slice would decide by the example which of both sizes is the smaller one.
    larger: Any = torch.sym_max
    smaller: Any = torch.sym_min
    size = larger(smaller(rows - row, columns - column), 0)
    positions = torch.arange(size, device=x.device)
    wide = x.to(torch.int32) if dtype == torch.bool else x
    wide = wide.index_select(-2, positions + row)
    columns_of = (positions + column).unsqueeze(-1).expand([*x.shape[:-2], size, 1])
    return wide.gather(-1, columns_of).squeeze(-1).to(dtype)


def _col2im(x: torch.Tensor, *args: Any) -> Any:
    """Add a batch dimension, which ONNX's Col2Im requires."""
    return aten.col2im(x.unsqueeze(0), *args).squeeze(0) if x.dim() == 2 else NotImplemented


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.col2im.default: _col2im,
    aten.copy.default: _copy,
    aten.diagonal.default: _diagonal,
    aten.diagonal_copy.default: _diagonal,
    aten.squeeze.dim: _squeeze,
}
