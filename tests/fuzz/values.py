"""Dtypes, and tensors of several styles: small numbers, whole ranges, nan, inf, -0.0, denormals."""

from __future__ import annotations

from collections.abc import Sequence

import torch

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SIGNED = (torch.int64, torch.int32, torch.int16, torch.int8)
INTEGERS = (*SIGNED, torch.uint8)
NUMBERS = (*FLOATS, *INTEGERS)
ALL = (*NUMBERS, torch.bool)

STYLES = ("small", "halves", "normal", "special", "wide", "extreme", "tiny", "zeros")


def tensor(shape: Sequence[int], dtype: torch.dtype, style: str, seed: int) -> torch.Tensor:
    """A tensor of a style; "index:N" has integers from 0 to N - 1."""
    rng = torch.Generator().manual_seed(seed)
    if style.startswith("index:"):
        return torch.randint(0, max(int(style[6:]), 1), tuple(shape), generator=rng).to(dtype)
    if dtype == torch.bool:
        return torch.rand(tuple(shape), generator=rng) < {"zeros": 0.1, "wide": 0.9}.get(style, 0.5)
    if dtype.is_floating_point:
        return _floats(tuple(shape), dtype, style, rng)
    return _integers(tuple(shape), dtype, style, rng)


def _floats(
    shape: tuple[int, ...], dtype: torch.dtype, style: str, rng: torch.Generator
) -> torch.Tensor:
    info = torch.finfo(dtype)
    normal = torch.randn(shape, generator=rng, dtype=torch.float64)
    if style == "small":
        return (normal * 2).round().to(dtype)
    if style == "halves":
        return ((normal * 4).round() / 2).to(dtype)
    if style == "zeros":
        return torch.where(normal > 0.3, 0.0, -0.0).to(dtype)
    if style == "tiny":
        return (normal * info.smallest_normal).to(dtype)
    if style == "wide":
        top = torch.tensor(info.max, dtype=torch.float64).log()
        power = (torch.rand(shape, generator=rng, dtype=torch.float64) * 2 - 1) * top
        return (normal.sign() * power.exp()).to(dtype)
    if style == "extreme":
        return _mixed(normal, [info.max, info.min, info.tiny, info.eps, 1.0, 0.0, -1.0], rng, dtype)
    if style == "special":
        nan, inf = float("nan"), float("inf")
        return _mixed(normal, [nan, inf, -inf, -0.0, 0.0, 1.0, -1.0], rng, dtype)
    return normal.to(dtype)


def _integers(
    shape: tuple[int, ...], dtype: torch.dtype, style: str, rng: torch.Generator
) -> torch.Tensor:
    info = torch.iinfo(dtype)
    low = -6 if info.min else 0
    small = torch.randint(low, 7, shape, generator=rng)
    if style in ("normal", "halves"):
        return torch.randint(max(info.min, -100), 101, shape, generator=rng).to(dtype)
    if style == "wide":
        return torch.randint(info.min // 2, info.max // 2 + 1, shape, generator=rng).to(dtype)
    if style in ("special", "extreme"):
        return _mixed(small, [info.min, info.max, info.min + 1, 0, 1, low // 6], rng, dtype)
    return (small * 0 if style == "zeros" else small).to(dtype)


def _mixed(
    base: torch.Tensor, values: Sequence[float], rng: torch.Generator, dtype: torch.dtype
) -> torch.Tensor:
    chosen = torch.tensor(values, dtype=base.dtype)[
        torch.randint(0, len(values), base.shape, generator=rng)
    ]
    keep = torch.rand(base.shape, generator=rng) < 0.5
    return torch.where(keep, base, chosen).to(dtype)
