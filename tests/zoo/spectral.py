"""Models that compute with complex numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from zoo.registry import Entry, ids, randn, zoo


class SpectralConvolution(nn.Module):
    """Multiplies the lowest frequencies by complex weights, as a Fourier neural operator does."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        scale = 1 / width
        self.low = nn.Parameter(scale * torch.randn(width, width, modes, modes, dtype=torch.cfloat))
        self.high = nn.Parameter(
            scale * torch.randn(width, width, modes, modes, dtype=torch.cfloat)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft2(x)
        modes = self.modes
        out = torch.zeros_like(spectrum)
        low, high = spectrum[..., :modes, :modes], spectrum[..., -modes:, :modes]
        out[..., :modes, :modes] = torch.einsum("bixy,ioxy->boxy", low, self.low)
        out[..., -modes:, :modes] = torch.einsum("bixy,ioxy->boxy", high, self.high)
        return torch.fft.irfft2(out, s=x.shape[-2:])


class FourierNeuralOperator(nn.Module):
    def __init__(self, width: int = 8, modes: int = 4) -> None:
        super().__init__()
        self.lift = nn.Conv2d(3, width, 1)
        self.spectral = nn.ModuleList(SpectralConvolution(width, modes) for _ in range(3))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(3))
        self.project = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.lift(x)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            h = functional.gelu(spectral(h) + local(h))
        return self.project(h)


@zoo("plain", quick=True)
def fourier_neural_operator() -> Entry:
    return Entry(
        FourierNeuralOperator(),
        lambda batch: {"x": randn(batch, 3, 32, 24)},
        {"batch": (1, 2, 4)},
        {"x": {0: "batch"}},
        fixed="height and width: the grid of the operator",
    )


class ComplexRotaryBlock(nn.Module):
    """A decoder block that turns queries and keys by complex products, as Llama's code did."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).chunk(3, -1)
        q, k, v = (t.view(batch, length, self.heads, width // self.heads) for t in (q, k, v))
        q, k = turned(q, turns), turned(k, turns)
        mixed = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.silu(self.up(self.norm_2(x))))


def turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns[:, None, :]).flatten(3).type_as(x)


class ComplexRotaryDecoder(nn.Module):
    def __init__(self, vocabulary: int = 100, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(ComplexRotaryBlock(width, heads) for _ in range(2))
        self.head = nn.Linear(width, vocabulary, bias=False)
        size = width // heads
        rates = 1.0 / (10000.0 ** (torch.arange(0, size, 2).float() / size))
        angles = torch.outer(torch.arange(128).float(), rates)
        turns = torch.polar(torch.ones_like(angles), angles)
        self.register_buffer("turns", turns, persistent=False)

    def forward(self, tokens: torch.Tensor) -> Any:
        h = self.embed(tokens)
        turns = self.turns[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h, turns)
        return self.head(h)


@zoo("plain", quick=True)
def complex_rotary_decoder() -> Entry:
    return Entry(
        ComplexRotaryDecoder(),
        lambda batch, length: {"tokens": ids(100, batch, length)},
        {"batch": (1, 2, 4), "length": (2, 16, 64)},
        {"tokens": {0: "batch", 1: "length"}},
    )
