"""Special functions that torch.onnx translates wrongly or not at all, by simpler ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor


def _sinc(x: Tensor) -> Any:
    """Compute half precision in float32 as PyTorch does: pi * x in float16 has other zeros.

    torch.onnx writes pi as float32.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        return torch.sinc(x.float()).to(x.dtype)
    if x.dtype != torch.float64:
        return NotImplemented
    angle = x * math.pi
    return torch.where(angle == 0, 1.0, torch.sin(angle) / angle)


# Chebyshev coefficients of log(erfc(z) / t) + z^2 for t = 2 / (2 + z).
# Source: Numerical Recipes, 3rd edition, section 6.2.2. The first 13 are enough for float32.
_ERFC = (
    *(-1.3026537197817094, 6.4196979235649026e-1, 1.9476473204185836e-2, -9.561514786808631e-3),
    *(-9.46595344482036e-4, 3.66839497852761e-4, 4.2523324806907e-5, -2.0278578112534e-5),
    *(-1.624290004647e-6, 1.303655835580e-6, 1.5626441722e-8, -8.5238095915e-8),
    *(6.529054439e-9, 5.059343495e-9, -9.91364156e-10, -2.27365122e-10, 9.6467911e-11),
    *(2.394038e-12, -6.886027e-12, 8.94487e-13, 3.13092e-13, -1.12708e-13, 3.81e-16),
    *(7.106e-15, -1.523e-15, -9.4e-17, 1.21e-16, -2.8e-17),
)


def _erfc(x: Tensor) -> Any:
    """Compute the digits of small results: torch writes 1 - erf(x), which loses them."""
    if not x.dtype.is_floating_point:
        x = x.to(torch.get_default_dtype())
    dtype, terms = x.dtype, _ERFC if x.dtype == torch.float64 else _ERFC[:13]
    x = x.float() if dtype in (torch.float16, torch.bfloat16) else x
    size = x.abs()
    size = torch.where(size > 30, torch.full_like(size, 30), size)  # NaN stays
    t = 2 / (2 + size)
    twice = 4 * t - 2
    last, sum_ = torch.zeros_like(t), torch.zeros_like(t)
    for term in reversed(terms[1:]):
        last, sum_ = sum_, twice * sum_ - last + term
    high = torch.floor(size * 16) / 16  # its square is exact
    rest = 0.5 * (terms[0] + twice * sum_) - last - (size - high) * (size + high)
    small = t * torch.exp(-high * high) * torch.exp(rest)
    return torch.where(x < 0, 2 - small, small).to(dtype)


def _in_float64(factor: float) -> Callable[..., Any]:
    """Multiply float64 by an exact factor: torch.onnx writes it as float32."""

    def decomposed(x: Tensor) -> Any:
        return x * factor if x.dtype == torch.float64 else NotImplemented

    return decomposed


def _masked_fill(x: Tensor, mask: Tensor, value: float) -> Any:
    """Fill float64 with the number itself: torch.onnx writes it as float32."""
    if x.dtype != torch.float64:
        return NotImplemented
    return torch.where(mask, torch.full((), value, dtype=x.dtype, device=x.device), x)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """Compute the hypotenuse on scaled values, so that squares do not overflow.

    With an infinity it is infinite, also beside NaN.
    """
    x, y = x.abs(), y.abs()
    large = torch.maximum(x, y)
    part = torch.minimum(x, y) / large
    found = torch.where(large == 0, large, large * torch.sqrt(1 + part * part))
    return torch.where((x == math.inf) | (y == math.inf), math.inf, found)


def _heaviside(x: Tensor, values: Tensor) -> Tensor:
    """Return 0 for NaN as PyTorch does: torch.onnx gives 1."""
    return torch.where(x == 0, values, (x > 0).to(values.dtype))


def _xlogy(x: Tensor | float, y: Tensor | float) -> Tensor:
    """Return NaN where y is NaN, also beside 0, for which torch.onnx gives 0."""
    dtype = torch.result_type(x, y)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    x, y = (value.to(dtype) if isinstance(value, Tensor) else value for value in (x, y))
    y = y if isinstance(y, Tensor) else torch.full((), y, dtype=dtype)
    return torch.where((x == 0) & ~torch.isnan(y), 0.0, x * torch.log(y))


def _cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """Convert first, and handle 0-d tensors, so that the translation need not.

    Half precision is multiplied in float32, as in PyTorch.
    """
    wanted = dtype or (x.dtype if x.dtype.is_floating_point else torch.int64)
    if x.dim() == 0:
        return x.to(wanted).clone()
    if wanted in (torch.float16, torch.bfloat16):
        return torch.cumprod(x.to(wanted).float(), dim).to(wanted)
    return NotImplemented if x.dtype == wanted else torch.cumprod(x.to(wanted), dim)


def _logcumsumexp(x: Tensor, dim: int) -> Any:
    """Compute half precision in float32, and handle 0-d tensors."""
    if x.dim() == 0:
        return x.clone()
    half = x.dtype in (torch.float16, torch.bfloat16)
    return torch.logcumsumexp(x.float(), dim).to(x.dtype) if half else NotImplemented


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
    aten.masked_fill.Scalar: _masked_fill,
    aten.erfc.default: _erfc,
    aten.deg2rad.default: _in_float64(math.pi / 180),
    aten.rad2deg.default: _in_float64(180 / math.pi),
    aten.heaviside.default: _heaviside,
    aten.hypot.default: _hypot,
    aten.xlogy.Tensor: _xlogy,
    aten.xlogy.Scalar_Self: _xlogy,
    aten.xlogy.Scalar_Other: _xlogy,
    aten.cumprod.default: _cumprod,
    aten.sinc.default: _sinc,
    aten.logcumsumexp.default: _logcumsumexp,
    aten.searchsorted.Tensor: _searchsorted,
}
