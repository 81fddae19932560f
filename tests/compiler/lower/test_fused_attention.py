"""Attention operators of single devices, against scaled_dot_product_attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from models import lambda_module, randn
from torch.nn.functional import scaled_dot_product_attention

import portrt

aten = torch.ops.aten
CALLS: dict[str, Callable[..., Any]] = {
    "flash": lambda q, k, v, bias: aten._scaled_dot_product_flash_attention.default(
        q, k, v, 0.0, False, False, scale=0.25
    ),
    "flash, causal": lambda q, k, v, bias: aten._scaled_dot_product_flash_attention.default(
        q, k, v, 0.0, True, False, scale=0.25
    ),
    "efficient": lambda q, k, v, bias: aten._scaled_dot_product_efficient_attention.default(
        q, k, v, bias, True, scale=0.25
    ),
    "efficient, causal": lambda q, k, v, bias: aten._scaled_dot_product_efficient_attention.default(
        q, k, v, None, True, 0.0, True, scale=0.25
    ),
    "cudnn": lambda q, k, v, bias: aten._scaled_dot_product_cudnn_attention.default(
        q, k, v, None, True, 0.0, True, False, scale=0.25
    ),
}


def test_they_are_attention_with_its_statistics() -> None:
    """The CPU has no kernels of them: they are exported by their shapes alone."""

    def outputs(*args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part for call in CALLS.values() for part in call(*args)[:2])

    q, k, v = (randn(2, 4, 16, 8) for _ in range(3))
    bias = randn(2, 4, 16, 16)
    module = portrt.compile(
        lambda_module(outputs)().eval(),
        inputs=[q, k, v, bias],
        engines="onnxruntime",
        min_block_size=1,
        require_full_compilation=True,
        check="off",
    )
    found = module(q, k, v, bias)
    scores = q @ k.transpose(-2, -1) * 0.25
    hidden = scores.masked_fill(torch.ones(16, 16).triu(1).bool(), -torch.inf)
    for index, name in enumerate(CALLS):
        causal = "causal" in name or name == "cudnn"
        mask = bias if name == "efficient" else None
        want = scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=0.25)
        sums = hidden if causal else scores if mask is None else scores + mask
        torch.testing.assert_close(found[2 * index], want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            found[2 * index + 1].reshape(2, 4, 16), sums.logsumexp(-1), rtol=1e-4, atol=1e-4
        )
