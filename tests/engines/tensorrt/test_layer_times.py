"""The times of layers, as the fake library reports them to the profiler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_tensorrt import plan
from rig import aligned

from portrt.engines.tensorrt import layer_times

PLAN = plan(
    "plus one",
    {"x": ("FLOAT", (-1, 4), [[(1, 4), (4, 4), (8, 4)]])},
    {"y": ("FLOAT", (["x", 0], 4))},
    memory=[1000],
)
X = {"x": ("float32", (8, 4))}
Y = {"y": ("float32", (8, 4))}
# Milliseconds of the layers of each run; a layer that is reported twice has the sum.
WARM_UP = [[("a", 500.0), ("b", 700.0), ("a", 900.0)]] * 3
RUNS = [
    [("a", 1.0), ("b", 10.0), ("a", 2.0)],
    [("a", 4.0), ("b", 30.0), ("a", 50.0)],
    [("a", 2.0), ("b", 20.0), ("a", 2.0)],
]


def test_they_are_medians_in_seconds_of_the_calls_that_do_not_warm_up(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rig(PLAN, X, Y)
    kind = run.library.IExecutionContext
    execute = kind._execute
    rounds = iter([*WARM_UP, *RUNS])
    reports: list[tuple[str, float]] = []

    def execute_and_time(self: Any, stream: int) -> bool:
        reports.extend(next(rounds))
        return bool(execute(self, stream))

    def synchronize() -> None:
        """The library reports when the layers have run."""
        context = run.contexts()[-1]
        for name, milliseconds in reports:
            context.profiler.report_layer_time(name, milliseconds)
        reports.clear()

    stream = SimpleNamespace(cuda_stream=7, synchronize=synchronize)
    monkeypatch.setattr(kind, "_execute", execute_and_time)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    x = aligned(torch.ones(4, 4))
    found = run.session.layer_times([x], [(4, 4)], calls=len(RUNS))
    assert len(WARM_UP) == layer_times._WARM_UP
    assert [(layer.name, layer.seconds) for layer in found] == [
        ("a", pytest.approx(0.004)),
        ("b", pytest.approx(0.02)),
    ]
    assert list(rounds) == []
    assert run.session.contexts.idle == {}  # they ran in a context of their own
