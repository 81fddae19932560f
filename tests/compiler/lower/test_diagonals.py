"""Diagonals of dynamic sizes, among them 1, and of every offset; products with a factor of 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import portrt
from portrt.runtime.calls import engine_calls

OFFSETS = (0, 1, -1, 4, 9)


class Diagonals(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = [torch.diag(x) * 2, torch.diagonal(x).sum(), torch.trace(x)]
        return [*found, torch.diagonal(torch.stack([x, x]), 0, 1, 2) + 1]


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_a_diagonal_of_dynamic_length(rows: int) -> None:
    x = torch.arange(24.0).reshape(8, 3)
    program = portrt.compile(
        Diagonals(),
        inputs=[x[:2]],
        dynamic_shapes=({0: Dim("rows", min=1, max=8)},),
        engines="onnxruntime",
        min_block_size=1,
    )
    torch.testing.assert_close(program(x[:rows]), Diagonals()(x[:rows]), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool])
def test_offsets_and_dimensions(dtype: torch.dtype) -> None:
    class Each(nn.Module):
        def forward(self, x: torch.Tensor, empty: torch.Tensor) -> list[torch.Tensor]:
            found = [torch.diagonal(x, offset, 2, 0).clone() for offset in OFFSETS]
            return [*found, torch.diagonal(x, -2, -1, 1).clone(), torch.diagonal(empty).clone()]

    given = (torch.randn(2, 3, 5).to(dtype), torch.zeros(3, 0).to(dtype))
    program = portrt.compile(Each(), inputs=given, engines="onnxruntime", min_block_size=1)
    torch.testing.assert_close(program(*given), Each()(*given), rtol=0, atol=0)


class Products(nn.Module):
    """`beta` or `alpha` is 0: what it would be multiplied with is not read."""

    def __init__(self, beta: float, alpha: float) -> None:
        super().__init__()
        self.scales: dict[str, Any] = {"beta": beta, "alpha": alpha}

    def forward(self, bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        batch = (a.expand(2, -1, -1), b.expand(2, -1, -1))
        return [
            torch.addmm(bias, a, b, **self.scales),
            torch.addmv(bias[:, 0], a, b[:, 0], **self.scales),
            torch.addbmm(bias, *batch, **self.scales),
            torch.baddbmm(bias.expand(2, -1, -1), *batch, **self.scales),
            torch.addr(bias, a[:, 0], b[0], **self.scales),
        ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scales", [(0, 1), (0, 2), (2, 0), (0, 0)])
def test_what_a_factor_of_0_leaves_out(dtype: torch.dtype, scales: tuple[float, float]) -> None:
    model = Products(*scales)
    bias, a, b = torch.randn(3, 4), torch.randn(3, 5), torch.randn(5, 4)
    if scales[0] == 0:
        bias.fill_(torch.nan)
    elif dtype in (torch.float32, torch.float64):  # other kernels read the factors
        a.fill_(torch.nan)
    given = [x.to(dtype) for x in (bias, a, b)]
    program = portrt.compile(
        model,
        inputs=given,
        engines="onnxruntime",
        min_block_size=1,
        check="error",
        output_format="exported_program",
    )
    assert list(engine_calls(program))
    torch.testing.assert_close(
        program.module()(*given), model(*given), equal_nan=True, rtol=2e-2, atol=2e-2
    )
