"""Operators that torch cannot decompose itself, against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from harness import assert_same
from models import lambda_module, randn

import portrt

prims = torch.ops.prims
VIEWS: dict[str, Callable[[torch.Tensor], Any]] = {
    "new last dimensions": lambda x: prims.broadcast_in_dim.default(x, [4, 1, 6, 1, 1], [0, 1, 2]),
    "new first dimension": lambda x: prims.broadcast_in_dim.default(x, [3, 4, 1, 6], [1, 2, 3]),
    "between": lambda x: prims.broadcast_in_dim.default(x, [4, 2, 1, 6], [0, 2, 3]),
    "expanded": lambda x: prims.broadcast_in_dim.default(x, [4, 5, 6], [0, 1, 2]),
    "transpose": lambda x: prims.transpose.default(x, [2, 0, 1]),
    "squeeze": lambda x: prims.squeeze.default(x, [1]),
    "collapse": lambda x: prims.collapse_view.default(x, 0, 2),
    "split": lambda x: prims.split_dim.default(x, 2, 3),
}


def test_views_of_prims_run_in_engines() -> None:
    def outputs(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(view(x * 2) for view in VIEWS.values())

    module = portrt.compile(
        lambda_module(outputs)().eval(),
        inputs=[randn(4, 1, 6)],
        engines="onnxruntime",
        min_block_size=1,
        require_full_compilation=True,
    )
    x = randn(4, 1, 6)
    assert_same(module(x), outputs(x))


@pytest.mark.parametrize("size", [0, 3, 5, 8])
def test_a_resized_input_is_a_new_tensor(size: int, caplog: pytest.LogCaptureFixture) -> None:
    def resized(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.resize_.default(x, (size,))

    module = portrt.compile(
        lambda_module(resized)().eval(),
        inputs=[torch.arange(5.0)],
        engines="onnxruntime",
        min_block_size=1,
    )
    x = randn(5)
    found = module(x)

    assert found.shape == (size,)
    assert_same(found[:5], x[:size])
    assert "x is resized in the program, and not in the caller's tensor" in caplog.text
