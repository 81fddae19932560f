"""An operator that no engine knows; a new process imports this file beside torch."""

from __future__ import annotations

import torch


@torch.library.custom_op("portrt_tests::shifted_relu", mutates_args=())
def shifted_relu(x: torch.Tensor, shift: float) -> torch.Tensor:
    """relu(x - shift)."""
    return torch.relu(x - shift)


@shifted_relu.register_fake
def _(x: torch.Tensor, shift: float) -> torch.Tensor:
    return torch.empty_like(x)
