"""Sign bits, also of zeros; torch's decompositions give them the dtype of their operand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Number = int | float | bool


def is_negative(x: torch.Tensor) -> torch.Tensor:
    """Return the sign bit, also of zeros; False for NaN."""
    if not x.dtype.is_floating_point:
        return torch.zeros_like(x, dtype=torch.bool) if x.dtype == torch.bool else x < 0
    return (x < 0) | ((x == 0) & (1 / x < 0))


def with_sign(x: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Negate x where `negative`, also zeros: ONNX Runtime's Where returns 0.0 for -0.0."""
    return x * (1 - 2 * negative.to(x.dtype))


def _copysign(x: torch.Tensor, y: torch.Tensor | Number) -> torch.Tensor:
    """Return x with the sign of y: torch.onnx ignores -0.0, and takes it twice for integer x.

    For a number torch's decomposition goes through prims.signbit, whose fake result (torch 2.13)
    has its operand's dtype; the real one is bool.
    """
    dtype = torch.result_type(x, y)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    x = x.to(dtype).abs()
    sign = torch.full((), y, dtype=dtype) if not isinstance(y, torch.Tensor) else y.to(dtype)
    return with_sign(x, is_negative(sign))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.signbit.default: is_negative,
    aten.copysign.Tensor: _copysign,
    aten.copysign.Scalar: _copysign,
}
