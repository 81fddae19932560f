"""Modes of a compiled module: `eval()` and `train(False)` as of any other, no training."""

from __future__ import annotations

from typing import Any

import torch

from portrt.errors import SettingsError


def add_modes(module: torch.fx.GraphModule) -> None:
    """Give a module that torch made of a program `eval` and `train`, which torch's own refuse."""
    kind: Any = type(module)  # each such module has its own
    for name in ("train", "eval"):
        module.__dict__.pop(name, None)
    kind.train = _train
    module.eval()


def _train(self: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    """As `torch.nn.Module.train` for `mode=False`."""
    if mode:
        raise SettingsError(
            "train() was called on a compiled program",
            "eval() or train(False): engines compute what the model did when it was compiled",
            "train the model itself, and compile it again",
        )
    return torch.nn.Module.train(self, False)
