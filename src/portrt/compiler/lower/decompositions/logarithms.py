"""Sums of exponentials, without overflow and underflow on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor

_HALF = (torch.float16, torch.bfloat16)


def _logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """Add to the larger one: torch.onnx writes log(exp(x) + exp(y))."""
    x, y, dtype = _wide(x, y)
    larger, distance = _apart(x, y)
    return (larger + torch.log1p(torch.exp(distance))).to(dtype)


def _logaddexp2(x: Tensor, y: Tensor) -> Tensor:
    x, y, dtype = _wide(x, y)
    larger, distance = _apart(x, y)
    return (larger + torch.log1p(torch.exp(distance * math.log(2))) / math.log(2)).to(dtype)


def _wide(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Return both in the dtype in which PyTorch computes, and the dtype of the result."""
    dtype = torch.result_type(x, y)
    wide = torch.float32 if dtype in _HALF else dtype
    return x.to(wide), y.to(wide), dtype


def _apart(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the larger one, and the negative distance of the other, 0 for equal infinities."""
    larger = torch.where(x > y, x, y)
    return larger, torch.where(x == y, 0.0, -torch.abs(x - y))


def _logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Any:
    """Write out the sum where there may be one alone: ONNX Runtime's loses NaN in it."""
    dims = [dim] if isinstance(dim, int) else list(dim)
    reduced = sorted({axis % x.dim() for axis in dims or range(x.dim())}) if x.dim() else []
    others = [size for axis, size in enumerate(x.shape) if axis not in reduced]
    if not x.dtype.is_floating_point or any(type(it) is int and it != 1 for it in others):
        return NotImplemented
    if not x.dim():
        return x.clone()
    wide = x.to(torch.float32) if x.dtype in _HALF else x
    largest = torch.amax(wide, reduced, keepdim=True)
    largest = torch.where(torch.isfinite(largest), largest, 0.0)
    found = torch.exp(wide - largest).sum(reduced, keepdim=True).log() + largest
    if not keepdim:
        found = found.squeeze(reduced)
    return found.to(x.dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.logaddexp.default: _logaddexp,
    aten.logaddexp2.default: _logaddexp2,
    aten.logsumexp.default: _logsumexp,
}
