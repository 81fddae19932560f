"""Sums of half precision that are outputs, which torch.onnx leaves in float32."""

from __future__ import annotations

import pytest
import torch
from tiny import call_of

import portrt


class Sums(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        total = x.sum((0, 2))
        return total, x.sum(1) * 2, total.sum() + x.mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_they_are_what_eager_gives(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 50).to(dtype)
    program = portrt.compile(
        Sums().eval(),
        inputs=[x],
        dynamic_shapes=({0: torch.export.Dim("n", max=9)},),
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    assert call_of(program).engine("onnxruntime")
    left = [node for node in program.graph.nodes if "aten" in str(node.target)]
    assert left == []
    for rows in (4, 1, 9):
        x = torch.randn(rows, 3, 50).to(dtype)
        for found, wanted in zip(program.module()(x), Sums()(x), strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(found, wanted)
