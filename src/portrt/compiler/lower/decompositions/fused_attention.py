"""Attention operators that are written as others.

Those of single devices, which a program has that was decomposed on that device, become
scaled_dot_product_attention, which is one ONNX node. That of float64 becomes products and a
softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor


def _attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Any, dropout: float, causal: bool, scale: Any
) -> Any:
    """Return the output; NotImplemented where it is random, or the causal mask is ambiguous."""
    if dropout != 0.0 or (causal and bias is not None):
        return NotImplemented
    return aten.scaled_dot_product_attention.default(
        query, key, value, bias, 0.0, causal, scale=scale
    )


def _logsumexp(query: Tensor, key: Tensor, bias: Any, causal: bool, scale: Any) -> Tensor:
    """Return the logarithms of the softmax denominators, in float32."""
    scores = _scores(query.float(), key.float(), causal, scale)
    return torch.logsumexp(scores if bias is None else scores + bias, -1)


def _scores(query: Tensor, key: Tensor, causal: bool, scale: Any) -> Tensor:
    """Return the scaled products, minus infinity for later positions if `causal`."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores: Tensor = torch.matmul(query, key.transpose(-2, -1)) * factor
    return scores.masked_fill(_after(query, key), -torch.inf) if causal else scores


def _of_float64(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Decompose float64: the scale of ONNX's operator is a float32.

    A row that attends to nothing is 0, as in PyTorch, where a plain softmax is NaN.
    """
    if query.dtype != torch.float64 or dropout_p != 0.0:
        return NotImplemented
    if enable_gqa:
        count = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(count, -3) for x in (key, value))
    scores = _scores(query, key, is_causal, scale)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:  # added, which makes NaN of infinite scores
            attn_mask = torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill(
                ~attn_mask, -torch.inf
            )
        scores = scores + attn_mask
    hidden = (scores == -torch.inf).all(-1, keepdim=True)
    return torch.matmul(torch.where(hidden, 0.0, torch.softmax(scores, -1)), value)


def _after(query: Tensor, key: Tensor) -> Tensor:
    """Return where a position of the key comes after that of the query: (L, S)."""
    rows, columns = (
        torch.arange(size, device=query.device) for size in (query.shape[-2], key.shape[-2])
    )
    return columns > rows.unsqueeze(1)


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> Any:
    return _overrideable(
        query, key, value, None, dropout_p, is_causal, return_debug_mask, scale=scale
    )


def _overrideable(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> Any:
    found = _attention(query, key, value, attn_bias, dropout_p, is_causal, scale)
    if found is NotImplemented or return_debug_mask:
        return NotImplemented
    lengths = (query.shape[-2], key.shape[-2])
    sums = _logsumexp(query, key, attn_bias, is_causal, scale)
    return (found, sums, None, None, *lengths, *_seed(query), query.new_empty((0,)))


def _cudnn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> Any:
    return _overrideable(
        query, key, value, attn_bias, dropout_p, is_causal, return_debug_mask, scale=scale
    )


def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> Any:
    found = _attention(query, key, value, attn_bias, dropout_p, is_causal, scale)
    if found is NotImplemented:
        return NotImplemented
    return (found, _logsumexp(query, key, attn_bias, is_causal, scale), *_seed(query))


def _seed(query: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state of a generator that nothing is drawn from."""
    return tuple(  # type: ignore[return-value]
        torch.zeros((), dtype=torch.int64, device=query.device) for _ in range(2)
    )


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.scaled_dot_product_attention.default: _of_float64,
    aten._scaled_dot_product_flash_attention.default: _flash,
    aten._scaled_dot_product_efficient_attention.default: _efficient,
    aten._scaled_dot_product_cudnn_attention.default: _cudnn,
    aten._scaled_dot_product_fused_attention_overrideable.default: _overrideable,
}
