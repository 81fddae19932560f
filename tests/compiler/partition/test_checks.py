"""What a model checks stays in PyTorch, beside one engine with everything else."""

from __future__ import annotations

import pytest
import torch
from harness import assert_same
from torch import nn

import portrt
from portrt.runtime.calls import engine_calls


class Checked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.relu()
        torch._assert_async((y < 5).all(), "too large")
        torch._check(y.sum().item() < 9, lambda: "too much")
        assert torch.ops.aten._is_all_true(y >= 0).dtype == torch.bool
        return y + 1


def test_checks_do_not_divide_the_engine_and_still_hold() -> None:
    program = portrt.compile(
        Checked().eval(),
        inputs=[torch.ones(2, 3)],
        engines="onnxruntime",
        min_block_size=1,
        require_full_compilation=True,
        output_format="exported_program",
    )
    module = program.module()

    assert len(list(engine_calls(program))) == 1
    for x in (torch.ones(2, 3), -torch.ones(2, 3)):
        assert_same(module(x), Checked()(x))
    with pytest.raises(RuntimeError, match="too large"):
        module(torch.tensor([[6.0, 0, 0], [0, 0, 0]]))
    with pytest.raises(RuntimeError):
        module(torch.full((2, 3), 4.0))
