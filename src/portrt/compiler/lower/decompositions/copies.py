"""Copies, casts and shapes that torch.onnx does not follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten


def _copy(x: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """torch.onnx casts the source and forgets to expand it."""
    return source.to(x.dtype).expand(x.shape).clone()


def _squeeze(x: torch.Tensor, dim: int) -> Any:
    """torch leaves a dimension that is not 1; ONNX's Squeeze is an error."""
    if x.dim() == 0 or x.shape[dim] != 1:
        return x.view(x.shape)
    return NotImplemented


def _col2im(x: torch.Tensor, *args: Any) -> Any:
    """ONNX's Col2Im has a batch."""
    return aten.col2im(x.unsqueeze(0), *args).squeeze(0) if x.dim() == 2 else NotImplemented


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.col2im.default: _col2im,
    aten.copy.default: _copy,
    aten.squeeze.dim: _squeeze,
}
