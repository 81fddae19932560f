"""Rewrite operators of quantization libraries by those of PyTorch and plain arithmetic.

A stored program then runs where torchao or modelopt is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

_FLOAT8_LARGEST = 448.0
# modelopt clamps amax to this.
_SMALLEST_AMAX = 2.0**-24


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return operator -> decomposition for the operators that are registered in this process."""
    found: dict[Any, Callable[..., Any]] = {aten._scaled_mm.default: _scaled_mm}
    modelopt = getattr(torch.ops.tensorrt, "quantize_op", None)
    if modelopt is not None:
        found[modelopt.default] = _quantize_op
    return found


def _scaled_mm(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale_result: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Any:
    """Multiply float8 matrices with one scale per tensor, or one per row and column."""
    fits_a = scale_a.numel() == 1 or tuple(scale_a.shape) == (a.shape[0], 1)
    fits_b = scale_b.numel() == 1 or tuple(scale_b.shape) == (1, b.shape[1])
    if not (fits_a and fits_b) or out_dtype is None or scale_result is not None:
        return NotImplemented
    if {scale_a.dtype, scale_b.dtype} != {torch.float32}:
        return NotImplemented
    scales = [s.reshape(1, 1) if s.numel() == 1 else s for s in (scale_a, scale_b)]
    product = (a.to(torch.float32) @ b.to(torch.float32)) * scales[0] * scales[1]
    if bias is not None:
        product = product + bias.to(torch.float32)
    return product.to(out_dtype)


def _quantize_op(
    x: torch.Tensor,
    amax: torch.Tensor,
    num_bits: int,
    exponent_bits: int,
    unsigned: bool,
    narrow_range: bool,
) -> Any:
    """Quantize and dequantize as modelopt's `tensorrt::quantize_op` does, with the range amax."""
    if x.dtype != torch.float32 or amax.dtype != torch.float32:
        return NotImplemented
    largest = amax.detach().clamp(min=_SMALLEST_AMAX)
    if (num_bits, exponent_bits) == (8, 4):
        return _float8(x, largest / _FLOAT8_LARGEST)
    if num_bits != 8 or exponent_bits != 0:
        return NotImplemented
    high = 255 if unsigned else 127
    low = 0 if unsigned else -127 if narrow_range else -128
    return _int8(x, largest / high, (low, high, torch.uint8 if unsigned else torch.int8))


def _float8(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    cut = (x / scale).clamp(-_FLOAT8_LARGEST, _FLOAT8_LARGEST)
    return cut.to(torch.float8_e4m3fn).to(torch.float32) * scale


def _int8(x: torch.Tensor, scale: torch.Tensor, grid: tuple[int, int, torch.dtype]) -> Any:
    import torch.ao.quantization.fx._decomposed  # it defines the operators

    known = torch.ops.quantized_decomposed
    if scale.numel() == 1:
        scale = scale.reshape(())
        zero = torch.zeros_like(scale, dtype=torch.int64)
        q = known.quantize_per_tensor.tensor(x, scale, zero, *grid)
        return known.dequantize_per_tensor.tensor(q, scale, zero, *grid)
    axes = [axis for axis, size in enumerate(scale.shape) if size != 1]
    if len(axes) != 1 or scale.dim() != x.dim():
        return NotImplemented
    scale = scale.reshape(-1)
    zeros = torch.zeros_like(scale, dtype=torch.int64)
    q = known.quantize_per_channel.default(x, scale, zeros, axes[0], *grid)
    return known.dequantize_per_channel.default(q, scale, zeros, axes[0], *grid)
