"""Variances, deviations and means of few elements: NaN, 0 or infinity, as PyTorch has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import portrt
from portrt.runtime.calls import engine_calls

# Sizes, reduced dimensions, correction.
CASES: list[tuple[tuple[int, ...], Any, float]] = [
    ((2, 1, 3), 1, 1),
    ((2, 2, 3), 1, 2),
    ((2, 2, 3), 1, 5),
    ((2, 2, 3), [0, 1], 4.5),
    ((1,), None, 1),
    ((), None, 1),
    ((), 0, 0),
    ((), 0, 3),
    ((4, 3), -1, 0),
]
FUNCTIONS = [torch.var, torch.std, torch.var_mean, torch.std_mean]


class Variances(nn.Module):
    def forward(self, tensors: list[torch.Tensor]) -> list[Any]:
        return [
            function(x, dim=dim, correction=correction, keepdim=keepdim)
            for x, (_, dim, correction) in zip(tensors, CASES, strict=True)
            for function in FUNCTIONS
            for keepdim in (False, True)
        ]


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")  # PyTorch's, of the model itself
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_variances_of_few_elements(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    given = [torch.randn(sizes).to(dtype) for sizes, _, _ in CASES]
    program = portrt.compile(
        Variances(),
        inputs=[given],
        engines="onnxruntime",
        min_block_size=1,
        check="error",
        output_format="exported_program",
    )
    assert len(list(engine_calls(program))) == 1
    given[-1][0, 0] = torch.nan
    for found, wanted in zip(
        torch.utils._pytree.tree_leaves(program.module()(given)),
        torch.utils._pytree.tree_leaves(Variances()(given)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, equal_nan=True)
