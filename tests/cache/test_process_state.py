"""A program that was compiled under another default dtype is not taken from the cache."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import portrt


class Share(nn.Module):
    def forward(self, n: torch.Tensor) -> torch.Tensor:
        return (n + 1) / 7


def test_a_program_of_another_default_dtype_is_a_miss(tmp_path: Path) -> None:
    n, found = torch.arange(1, 9), []
    for dtype in (torch.float32, torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        try:
            program = portrt.compile(
                Share().eval(),
                inputs=[n],
                engines="onnxruntime",
                min_block_size=1,
                cache_dir=tmp_path,
            )
            found.append(program(n))
        finally:
            torch.set_default_dtype(torch.float32)

    assert [one.dtype for one in found] == [torch.float32, torch.float64, torch.float32]
    torch.testing.assert_close(found[1], (n.double() + 1) / 7, rtol=1e-15, atol=0)
