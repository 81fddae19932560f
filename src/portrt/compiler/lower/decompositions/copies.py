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


def _repeat_interleave(
    x: torch.Tensor, repeats: Any, dim: int | None = None, *, output_size: Any = None
) -> torch.Tensor:
    """Expand and reshape to sizes: torch.onnx reshapes to -1, of a tensor that may be empty."""
    if dim is None:
        x, dim = x.reshape(-1), 0
    if not x.dim():
        x = x.reshape(1)
    dim %= x.dim()
    shape = list(x.shape)
    wide = x.unsqueeze(dim + 1).expand([*shape[: dim + 1], repeats, *shape[dim + 1 :]])
    return wide.reshape([*shape[:dim], shape[dim] * repeats, *shape[dim + 1 :]])


def _shuffle(to_space: bool) -> Callable[..., Any]:
    """Reshape and permute images without a batch, or with several: torch.onnx reshapes to -1."""

    def decomposed(x: torch.Tensor, factor: int) -> Any:
        if x.dim() == 4:
            return NotImplemented
        *batch, channels, height, width = x.shape
        axes = list(range(len(batch)))
        if to_space:
            shape = [channels // factor**2, factor, factor, height, width]
            order, end = [0, 3, 1, 4, 2], [shape[0], height * factor, width * factor]
        else:
            shape = [channels, height // factor, factor, width // factor, factor]
            order, end = [0, 2, 4, 1, 3], [channels * factor**2, shape[1], shape[3]]
        moved = x.reshape([*batch, *shape]).permute([*axes, *(len(batch) + it for it in order)])
        return moved.reshape([*batch, *end])

    return decomposed


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.col2im.default: _col2im,
    aten.copy.default: _copy,
    aten.diagonal.default: _diagonal,
    aten.diagonal_copy.default: _diagonal,
    aten.pixel_shuffle.default: _shuffle(to_space=True),
    aten.pixel_unshuffle.default: _shuffle(to_space=False),
    aten.repeat_interleave.self_int: _repeat_interleave,
    aten.squeeze.dim: _squeeze,
}
