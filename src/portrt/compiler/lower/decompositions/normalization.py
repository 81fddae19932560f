"""Norms that torch.onnx translates wrongly in training mode or in dtypes other than float32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch._decomp import get_decompositions

aten = torch.ops.aten
Tensor = torch.Tensor

_TORCH_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = get_decompositions(
    [
        aten.native_layer_norm.default,
        aten.native_group_norm.default,
        aten.linalg_vector_norm.default,
    ]
)


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Normalize by the batch's statistics: torch.onnx ignores `training`.

    PyTorch's own decomposition computes with sizes as floats, which engines cannot.
    """
    if not training:
        found = _inference_batch_norm(x, weight, bias, mean, var, momentum, eps)
        return (*found, mean.clone(), var.clone())
    out, saved_mean, rstd, own_mean, own_var = _normalized(x, weight, bias, eps)
    count = torch.full((), x.numel() // x.shape[1], dtype=own_var.dtype, device=x.device)
    unbiased = own_var * (count / (count - 1))
    new_mean = own_mean * momentum + mean * (1 - momentum)
    new_var = unbiased * momentum + var * (1 - momentum)
    return out, saved_mean, rstd, new_mean.to(mean.dtype), new_var.to(var.dtype)


def _batch_norm_without_statistics(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _normalized(x, weight, bias, eps)[:3]


def _normalized(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Normalize over all dimensions but the channels.

    Returns:
        Output, mean and 1 / standard deviation in the dtype of `x`; mean and variance in the dtype
        of the computation.
    """
    wide = x.to(_wide(x))
    dims = [axis for axis in range(x.dim()) if axis != 1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    mean = wide.mean(dims)
    centred = wide - mean.reshape(shape)
    var = (centred * centred).mean(dims)
    rstd = torch.rsqrt(var + eps)
    out = centred * rstd.reshape(shape)
    out = out if weight is None else out * weight.to(wide.dtype).reshape(shape)
    out = out if bias is None else out + bias.to(wide.dtype).reshape(shape)
    return out.to(x.dtype), mean.to(x.dtype), rstd.to(x.dtype), mean, var


def _wide(x: Tensor) -> torch.dtype:
    """Return the dtype in which PyTorch computes norms: float32 for half precision."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _inference_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return empty statistics as PyTorch does: torch.onnx gives them other sizes and dtypes."""
    wide = _wide(x)
    scale = torch.rsqrt(var.to(wide) + eps)
    scale = scale if weight is None else scale * weight.to(wide)
    shift = -mean.to(wide) * scale
    shift = shift if bias is None else shift + bias.to(wide)
    shape = [1, -1, *[1] * (x.dim() - 2)]
    found = x.to(wide) * scale.reshape(shape) + shift.reshape(shape)
    return found.to(x.dtype), x.new_empty(0), x.new_empty(0)


def double_batch_norm(x: Tensor, *args: Any) -> Any:
    """Decompose inference batch norm of float64: the epsilon of ONNX's is a float32."""
    return _inference_batch_norm(x, *args) if x.dtype == torch.float64 else NotImplemented


def _double_layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """Decompose float64: the epsilon of ONNX's operator is a float32."""
    if x.dtype != torch.float64:
        return NotImplemented
    return _TORCH_DECOMPOSITIONS[aten.native_layer_norm.default](x, shape, weight, bias, eps)[0]


def _double_rms_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Any:
    """Decompose float64, for the same reason."""
    if x.dtype != torch.float64:
        return NotImplemented
    dims = list(range(-len(shape), 0))
    least = torch.finfo(x.dtype).eps if eps is None else eps
    out = x * torch.rsqrt((x * x).mean(dims, keepdim=True) + least)
    return out if weight is None else out * weight


def _double_group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Decompose float64: ONNX has the epsilon and the statistics in float32."""
    if x.dtype != torch.float64:
        return NotImplemented
    folded = x.reshape([x.shape[0], groups, -1])
    centred = folded - folded.mean(-1, keepdim=True)
    scale = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)
    out = (centred * scale).reshape(x.shape)
    shape = [1, -1, *[1] * (x.dim() - 2)]
    out = out if weight is None else out * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


def _cast_first(op: Any) -> Callable[..., Tensor]:
    """Cast the input to the dtype of a softmax as PyTorch does: torch.onnx casts its result."""

    def decomposed(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        found: Tensor = op(x if dtype is None else x.to(dtype), dim, False)
        return found

    return decomposed


def _double_log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    """Decompose float64: ONNX Runtime returns numbers beside NaN and infinity (1.32)."""
    if x.dtype != torch.float64 or not x.dim():
        return NotImplemented
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - torch.log(torch.exp(shifted).sum(dim, keepdim=True))


def _torch_decomposition(op: Any, dtypes: Collection[torch.dtype]) -> Callable[..., Any]:
    """Use PyTorch's decomposition for some dtypes.

    ONNX has the statistics in float32, PyTorch in the dtype of the input. Of a vector norm
    torch.onnx has the exponent of the root in float32, and sums of halves in halves.
    """

    def decomposed(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if x.dtype not in dtypes:
            return NotImplemented
        return _TORCH_DECOMPOSITIONS[op](x, *args, **kwargs)

    return decomposed


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.softmax.int: _cast_first(aten._softmax.default),
    aten.log_softmax.int: _cast_first(aten._log_softmax.default),
    aten._log_softmax.default: _double_log_softmax,
    aten._native_batch_norm_legit_functional.default: _batch_norm,
    aten._native_batch_norm_legit.no_stats: _batch_norm_without_statistics,
    aten._native_batch_norm_legit_no_training.default: _inference_batch_norm,
    aten.layer_norm.default: _double_layer_norm,
    aten.rms_norm.default: _double_rms_norm,
    aten.group_norm.default: _double_group_norm,
    # A layer norm or group norm whose statistics are unused is another operator, and is kept.
    aten.native_layer_norm.default: _torch_decomposition(
        aten.native_layer_norm.default, (torch.float64, torch.float16, torch.bfloat16)
    ),
    aten.native_group_norm.default: _torch_decomposition(
        aten.native_group_norm.default, (torch.float64,)
    ),
    aten.linalg_vector_norm.default: _torch_decomposition(
        aten.linalg_vector_norm.default, (torch.float64, torch.float16, torch.bfloat16)
    ),
}
