"""Sequences and rotations by numbers that are computed from sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor

# Multiples of it are added without rounding in float32, up to two million.
_EXACT_STEP = 0.125


def _arange(start: Any, end: Any, step: Any = 1, *, dtype: Any = None, **options: Any) -> Any:
    """Compute fractions from an index: ONNX Runtime's Range adds the step again and again.

    torch.onnx also needs the dtype, where the numbers are of several kinds.
    """
    numbers = (start, end, step)
    if all(isinstance(number, (int, torch.SymInt)) for number in numbers):
        return NotImplemented
    wanted = torch.get_default_dtype() if dtype is None else dtype
    if not wanted.is_floating_point:
        return NotImplemented
    if all(map(_is_exact, numbers)):
        if dtype is not None:
            return NotImplemented
        return aten.arange.start_step(start, end, step, dtype=wanted, **options)
    size: Any = math.ceil((end - start) / step)
    index = aten.arange.default(size, dtype=torch.int64, device=options.get("device"))
    wide = torch.float64 if wanted == torch.float64 else torch.float32
    return (index.to(wide) * step + start).to(wanted)


def _is_exact(number: Any) -> bool:
    if isinstance(number, torch.SymFloat):
        return False
    return isinstance(number, torch.SymInt) or float(number / _EXACT_STEP).is_integer()


def _roll(x: Tensor, shifts: Any, dims: Any = ()) -> Any:
    """Look up elements where a shift is computed from sizes: torch.onnx takes numbers alone."""
    if not any(isinstance(shift, torch.SymInt) for shift in shifts):
        return NotImplemented
    if not dims:
        return _rotated(x.flatten(), shifts[0], 0).view(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        x = _rotated(x, shift, dim)
    return x


def _rotated(x: Tensor, shift: Any, dim: int) -> Tensor:
    size = aten.scalar_tensor.default(x.shape[dim], dtype=torch.int64, device=x.device)
    size = size.clamp(min=1)  # ONNX Runtime divides by it, whatever the number of elements
    index = aten.arange.default(x.shape[dim], dtype=torch.int64, device=x.device)
    found: Tensor = torch.index_select(x, dim, torch.remainder(index - shift, size))
    return found


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.arange.default: lambda end, **options: _arange(0, end, **options),
    aten.arange.start: _arange,
    aten.arange.start_step: _arange,
    aten.roll.default: _roll,
}
