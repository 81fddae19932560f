"""TensorRT's objects end on their own GPU, and leave the current one as it is."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from fake_tensorrt import plan
from rig import aligned

PLAN = plan("plus one", {"x": ("FLOAT", (4,), [[(4,), (4,), (4,)]])}, {"y": ("FLOAT", (4,))})
X, Y = {"x": ("float32", (4,))}, {"y": ("float32", (4,))}


@pytest.mark.parametrize("kind", ["IExecutionContext", "ICudaEngine"])
def test_their_end_does_not_change_the_current_gpu(
    rig: Any, gpu: Any, trt: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The fake does what TensorRT does: it ends on GPU 0 and leaves that one current."""
    ended_on = []

    def end(_: object) -> None:
        ended_on.append(gpu.current)
        gpu.current = 0

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(getattr(trt, kind), "__del__", end, raising=False)
    run = rig(PLAN, X, Y)
    run(aligned(torch.ones(4)))
    trt.calls.clear()
    trt.executed.clear()
    gpu.current = 1
    assert ended_on == []
    del run
    gc.collect()
    assert ended_on == [0]
    assert gpu.current == 1
