"""Special functions that torch.onnx translates wrongly or not at all, by simpler ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor


def _copysign(x: Tensor, y: Tensor) -> Any:
    """Apply the sign bit of y: torch.onnx ignores it for -0.0, and takes it twice for integer x."""
    dtype = torch.result_type(x, y)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    size, y = x.to(dtype).abs(), y.to(dtype)
    negative = (y < 0) | ((y == 0) & (1 / y < 0))
    return torch.where(negative, -size, size)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """Compute the hypotenuse on scaled values, so that squares do not overflow."""
    x, y = x.abs(), y.abs()
    large = torch.maximum(x, y)
    part = torch.minimum(x, y) / large
    return torch.where(large == 0, large, large * torch.sqrt(1 + part * part))


def _cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Compute each prefix product as a product of a masked row.

    ONNX has no CumProd at the opsets that are written. Memory is quadratic in the length.
    """
    default = torch.int64 if not x.dtype.is_floating_point else x.dtype
    x = x.to(dtype or default)
    if x.dim() == 0:
        return x.clone()
    last = x.transpose(dim, -1)
    size = last.shape[-1]
    position = torch.arange(size, device=x.device)
    before = position.unsqueeze(0) <= position.unsqueeze(1)
    factors = torch.where(before, last.unsqueeze(-2), torch.ones_like(last).unsqueeze(-2))
    return aten.prod.dim_int(factors, -1, False).transpose(dim, -1)  # type: ignore[no-any-return]


def _searchsorted(
    sequence: Tensor,
    x: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Any:
    """Count the smaller elements."""
    if sorter is not None or sequence.dim() != 1:
        return NotImplemented
    x = x.unsqueeze(-1)
    below = sequence <= x if right or side == "right" else sequence < x
    return below.sum(-1).to(torch.int32 if out_int32 else torch.int64)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.copysign.Tensor: _copysign,
    aten.hypot.default: _hypot,
    aten.cumprod.default: _cumprod,
    aten.searchsorted.Tensor: _searchsorted,
}
