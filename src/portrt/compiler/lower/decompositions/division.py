"""Quotients that are rounded, and remainders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Number = int | float | bool
_HALF = (torch.float16, torch.bfloat16)


def _promoted(x: torch.Tensor, y: torch.Tensor | Number) -> list[torch.Tensor] | None:
    """Convert both operands to the result dtype; None if that is an integer dtype."""
    dtype = torch.result_type(x, y)
    if not dtype.is_floating_point:
        return None
    if not isinstance(y, torch.Tensor):
        y = torch.full((), y, dtype=dtype, device=x.device)
    return [x.to(dtype), y.to(dtype)]


def _remainder(x: torch.Tensor, y: torch.Tensor | Number) -> Any:
    """Compute the remainder by fmod.

    torch.onnx writes x - y * floor(x / y), which is y where x / y rounds up to an integer.
    """
    promoted = _promoted(x, y)
    if promoted is None:
        return NotImplemented
    x, divisor = promoted
    rest = torch.fmod(x, divisor)
    return torch.where((rest != 0) & ((rest < 0) ^ (divisor < 0)), rest + divisor, rest)


def _remainder_of_number(x: Number, y: torch.Tensor) -> Any:
    dtype = torch.result_type(x, y)
    if not dtype.is_floating_point:
        return NotImplemented
    return torch.remainder(torch.full((), x, dtype=dtype, device=y.device), y)


def _divide(x: torch.Tensor, y: torch.Tensor | Number, *, rounding_mode: str | None = None) -> Any:
    """Divide with rounding, exactly.

    torch.onnx writes floor(x / y), which is one too large where x / y rounds up to an integer, and
    divides integers in float32, which is not exact beyond 2^24. Half precision is divided by a
    number in float32, as in PyTorch, which rounds the number only where both are tensors.
    Source of the float case: floor division of CPython's float, which PyTorch follows.
    """
    dtype = torch.result_type(x, y)
    if rounding_mode is None or dtype == torch.bool:
        return NotImplemented
    if dtype in _HALF and not (isinstance(y, torch.Tensor) and y.dim()):
        y = y.float() if isinstance(y, torch.Tensor) else y
        return aten.div.Tensor_mode(x.float(), y, rounding_mode=rounding_mode).to(dtype)
    promoted = _promoted(x, y)
    if promoted is None:
        x, y = x.to(dtype), y.to(dtype) if isinstance(y, torch.Tensor) else y
        return torch.floor_divide(x if rounding_mode == "floor" else x - torch.fmod(x, y), y)
    if rounding_mode == "trunc":
        return NotImplemented
    x, divisor = promoted
    rest = torch.fmod(x, divisor)
    quotient = (x - rest) / divisor
    quotient = torch.where((rest != 0) & ((rest < 0) ^ (divisor < 0)), quotient - 1, quotient)
    below = torch.floor(quotient)
    rounded = torch.where(quotient - below > 0.5, below + 1, below)
    return torch.where(divisor == 0, x / divisor, rounded)


def _floor_divide(x: torch.Tensor | Number, y: torch.Tensor | Number) -> Any:
    """Divide a number by a tensor, which torch.onnx refuses, and floats exactly (see `_divide`)."""
    dtype = torch.result_type(x, y)
    if not isinstance(x, torch.Tensor):
        assert isinstance(y, torch.Tensor)
        x = torch.full((), x, dtype=dtype, device=y.device)
    if dtype.is_floating_point:
        return torch.div(x, y, rounding_mode="floor")
    if x.dtype == dtype and (not isinstance(y, torch.Tensor) or y.dtype == dtype):
        return NotImplemented
    return torch.floor_divide(x.to(dtype), y.to(dtype) if isinstance(y, torch.Tensor) else y)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.remainder.Tensor: _remainder,
    aten.remainder.Scalar: _remainder,
    aten.remainder.Scalar_Tensor: _remainder_of_number,
    aten.div.Tensor_mode: _divide,
    aten.div.Scalar_mode: _divide,
    aten.floor_divide.default: _floor_divide,
}
