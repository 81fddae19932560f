"""Launches of a kernel, by a driver that keeps its calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from portrt import torch_internals
from portrt.engines.tensorrt import cuda_kernel

CONTEXT, FUNCTION = 7, 11


class Driver:
    """Takes a launch in one context alone."""

    def __init__(self, error: int) -> None:
        self.current, self.error, self.launched = 0, error, 0

    def cuLaunchKernel(self, function: int, *_: Any) -> int:  # noqa: N802  (CUDA's name)
        assert function == FUNCTION
        if self.current != CONTEXT:
            return self.error
        self.launched += 1
        return 0

    def cuCtxSetCurrent(self, context: int) -> int:  # noqa: N802
        self.current = context
        return 0


def launch_of(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> cuda_kernel.Launch:
    monkeypatch.setattr(torch_internals, "compiled_cuda_function", lambda *_: FUNCTION)
    monkeypatch.setattr(cuda_kernel, "cuda_driver", lambda: driver)
    monkeypatch.setattr(cuda_kernel, "current_context", lambda: CONTEXT)
    found = cuda_kernel.cuda_kernel("", "kernel", torch.device("cpu"))
    assert found is not None
    return found


@pytest.mark.parametrize("error", [201, 400], ids=["none is current", "another one is"])
def test_it_is_launched_in_the_context_that_it_was_compiled_in(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    driver = Driver(error)
    launch = launch_of(driver, monkeypatch)
    launch((1, 1), 32, 0, [1, 2])
    launch((1, 1), 32, 0, [1, 2])
    assert driver.launched == 2


def test_another_error_is_told_with_its_number(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(700)
    launch = launch_of(driver, monkeypatch)
    with pytest.raises(RuntimeError, match="cannot launch kernel: CUDA error 700"):
        launch((1, 1), 32, 0, [1, 2])
