"""Activations that torch.onnx or an engine computes wrongly, for some dtypes or all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor
Number = int | float | bool


def _relu(x: Tensor) -> Any:
    """Clamp integers: ONNX Runtime has no Relu kernel for int64."""
    return NotImplemented if x.dtype.is_floating_point else x.clamp(min=0)


def _threshold(x: Tensor, threshold: Number, value: Number) -> Tensor:
    """Choose in the dtype of the input: torch's decomposition converts integers to float32."""
    return torch.where(x <= threshold, torch.full((), value, dtype=x.dtype, device=x.device), x)


def _elu(x: Tensor, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> Any:
    """Apply `input_scale`, which torch.onnx ignores."""
    if input_scale == 1:
        return NotImplemented
    return torch.where(x > 0, x * scale, torch.expm1(x * input_scale) * (alpha * scale))


def _celu(x: Tensor, alpha: float = 1.0) -> Any:
    """Compute float64 exactly: ONNX defines Celu in float32."""
    if x.dtype != torch.float64:
        return NotImplemented
    return torch.where(x > 0, x, torch.expm1(x / alpha) * alpha)


def _gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """Compute float64 exactly: Gelu has the constants of its approximation in float32."""
    if x.dtype != torch.float64 or approximate == "none":
        return NotImplemented
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + torch.tanh(inner))


def _sigmoid(x: Tensor) -> Any:
    """Compute float64 exactly: ONNX Runtime's kernel has an absolute error."""
    return 1 / (1 + torch.exp(-x)) if x.dtype == torch.float64 else NotImplemented


def _silu(x: Tensor) -> Any:
    return x / (1 + torch.exp(-x)) if x.dtype == torch.float64 else NotImplemented


def _glu(x: Tensor, dim: int = -1) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    half = x.shape[dim] // 2
    return x.narrow(dim, 0, half) * torch.sigmoid(x.narrow(dim, half, half))


def _log_sigmoid(x: Tensor) -> Tensor:
    """Compute what is far from 0: torch.onnx writes log(sigmoid(x)), which is -infinity there."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    below = torch.minimum(wide, torch.zeros_like(wide))
    return (below - torch.log1p(torch.exp(-wide.abs()))).to(x.dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.celu.default: _celu,
    aten.elu.default: _elu,
    aten.gelu.default: _gelu,
    aten.glu.default: _glu,
    aten.log_sigmoid.default: _log_sigmoid,
    aten.relu.default: _relu,
    aten.sigmoid.default: _sigmoid,
    aten.silu.default: _silu,
    aten.threshold.default: _threshold,
}
