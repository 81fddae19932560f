"""scaled_dot_product_attention in all its forms."""

from __future__ import annotations

import math

import torch

from ops.case import Case, T, rows

sdpa = torch.nn.functional.scaled_dot_product_attention
_OP = "nn.functional.scaled_dot_product_attention"
_QKV = (T("n,2,t,4"), T("n,2,t,4"), T("n,2,t,4"))
_CROSS = (T("n,2,t,4"), T("n,2,6,4"), T("n,2,6,4"))
_HALF = ("f32", "f16", "bf16")


def _masked(q, k, v, mask):  # type: ignore[no-untyped-def]
    """With one key that every query sees."""
    return sdpa(q, k, v, attn_mask=mask | (torch.arange(mask.shape[-1]) == 0))


def _row(variant: str, *args: T, function: object = sdpa, **options: object) -> list[Case]:
    return rows(_OP, *args, variant=variant, function=function, **options)


CASES = [
    *_row("plain", *_QKV, over=_HALF),
    *_row("static", T("2,2,3,4"), T("2,2,5,4"), T("2,2,5,4")),
    *_row("causal", *_QKV, over=_HALF, is_causal=True),
    *_row("causal, more keys", *_CROSS, is_causal=True),
    *_row("causal, fewer keys", T("n,2,6,4"), T("n,2,t,4"), T("n,2,t,4"), is_causal=True),
    *_row("cross", *_CROSS, over=_HALF),
    *_row("scale", *_QKV, scale=0.3, over=("f32", "f16")),
    *_row("wider values", T("n,2,t,4"), T("n,2,6,4"), T("n,2,6,8")),
    *_row("mask of queries and keys", *_CROSS, T("bool:t,6"), function=_masked, over=_HALF),
    *_row("mask of the batch", *_CROSS, T("bool:n,1,1,6"), function=_masked, over=("f32", "f16")),
    *_row("mask of all", *_CROSS, T("bool:n,2,t,6"), function=_masked),
    *_row(
        "added mask",
        *_CROSS,
        T("t,6"),
        over=_HALF,
        function=lambda q, k, v, m: sdpa(q, k, v, attn_mask=m),
    ),
    *_row(
        "added mask of the batch",
        *_CROSS,
        T("n,1,t,6"),
        function=lambda q, k, v, m: sdpa(q, k, v, attn_mask=m),
    ),
    *_row(
        "infinite mask",
        *_CROSS,
        T("bool:t,6"),
        function=lambda q, k, v, m: sdpa(
            q,
            k,
            v,
            attn_mask=torch.zeros(m.shape).masked_fill(m & (torch.arange(6) > 0), -math.inf),
        ),
    ),
    *_row(
        "a query that sees nothing",
        *_CROSS,
        T("bool:t,6"),
        function=lambda q, k, v, m: sdpa(
            q, k, v, attn_mask=m & (torch.arange(m.shape[0]) > 0).unsqueeze(1)
        ),
    ),
    *_row("grouped queries", T("n,4,t,4"), T("n,2,t,4"), T("n,2,t,4"), enable_gqa=True, over=_HALF),
    *_row(
        "grouped queries, causal",
        T("n,4,t,4"),
        T("n,1,t,4"),
        T("n,1,t,4"),
        enable_gqa=True,
        is_causal=True,
    ),
    *_row(
        "grouped queries, mask",
        T("n,4,t,4"),
        T("n,2,6,4"),
        T("n,2,6,4"),
        T("bool:n,1,1,6"),
        function=lambda q, k, v, m: sdpa(
            q, k, v, attn_mask=m | (torch.arange(6) == 0), enable_gqa=True
        ),
    ),
    *_row("three dimensions", T("n,t,4"), T("n,t,4"), T("n,t,4"), over=_HALF),
    *_row(
        "three dimensions, causal, scale",
        T("n,t,4"),
        T("n,6,4"),
        T("n,6,4"),
        is_causal=True,
        scale=0.7,
    ),
    *_row(
        "three dimensions, mask",
        T("n,t,4"),
        T("n,6,4"),
        T("n,6,4"),
        T("bool:n,t,6"),
        function=_masked,
    ),
    *_row(
        "three dimensions, mask for all",
        T("n,t,4"),
        T("n,6,4"),
        T("n,6,4"),
        T("t,6"),
        function=lambda q, k, v, m: sdpa(q, k, v, attn_mask=m),
    ),
    *_row("two dimensions", T("t,4"), T("6,4"), T("6,4")),
    *_row("five dimensions", T("n,3,2,t,4"), T("n,3,2,6,4"), T("n,3,2,6,4"), stays="only 4D"),
    *_row("keys of one batch", T("n,2,t,4"), T("1,2,6,4"), T("1,2,6,4")),
    *_row("dropout of zero", *_QKV, dropout_p=0.0),
    *_row("dropout", *_QKV, dropout_p=0.5, stays="random numbers", compares=False),
    *_row("double", *_QKV, over=("f64",), tolerance=(1e-6, 1e-6)),  # its scale is float32
]
