"""check_budget: a share of the compile time, counted here in draws with a clock of the test."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import portrt
from portrt.compiler import attempts
from portrt.compiler.checking import program as checking
from portrt.compiler.checking.budget import Budget
from portrt.runtime.calls import manifests_of


def test_drawn_inputs_end_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compilation takes 11 seconds before the check, and each run of the model one."""
    now = [0.0]
    real = checking.run_captured

    def run(*args: Any, **options: Any) -> Any:
        now[0] += 1
        return real(*args, **options)

    monkeypatch.setattr(checking, "run_captured", run)
    monkeypatch.setattr(
        attempts, "Budget", lambda share, _: Budget(share, now[0] - 10, lambda: now[0])
    )
    found = {}
    for share in (0, 0.05, 0.1, 0.2, 10):
        program = portrt.compile(
            nn.Sequential(nn.Linear(4, 4), nn.Tanh()).eval(),
            inputs=[torch.ones(2, 4)],
            engines="onnxruntime",
            min_block_size=1,
            output_format="exported_program",
            check_budget=share,
        )
        (text,) = manifests_of(program)
        found[share] = json.loads(text)["engines"][0]["check"]["program"]["compared"]
    # The first draw's cost is not known before; the sample is always compared.
    assert found == {0: 1, 0.05: 2, 0.1: 2, 0.2: 3, 10: 5}
