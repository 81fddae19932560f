"""select="measured": the fastest engine for each profile, by figures of the file, cache or now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import portrt
from portrt.errors import SettingsError
from portrt.format.editor import ProgramEditor
from portrt.runtime import Policy, measured_choice, policy, timing
from portrt.runtime.policy import effective

X = torch.tensor([[0.5] * 8])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("measured") / "model.pt2"
    profiles = [((1, 8),) * 3, ((2, 8), (4, 8), (16, 8))]
    program = portrt.compile(
        nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(),
        inputs=[portrt.Input(profiles=profiles)],
        engines=["onnxruntime", {"backend": "onnxruntime", "numerics": "fast"}],
        min_block_size=1,
        output_format="exported_program",
    )
    torch.export.save(program, file)
    return file


def _timed(monkeypatch: pytest.MonkeyPatch, first: list[float]) -> list[int]:
    """Let the first engine take these times at the profiles, the second 1.0; count the runs."""
    runs: list[int] = []

    def in_turn(calls: Any, goal: Any, budget_s: float) -> dict[str, list[float]]:
        runs.append(len(calls))
        own = first[(len(runs) - 1) % len(first)]
        return {label: [own if label == "0" else 1.0] * 5 for label in calls}

    monkeypatch.setattr(timing, "_in_turn", in_turn)
    return runs


@pytest.mark.parametrize(
    ("first", "names"),
    [
        ([0.5, 0.5], ["0", "0"]),
        ([2.0, 2.0], ["1", "1"]),
        ([0.5, 2.0], ["0", "1"]),
        ([2.0, 0.5], ["1", "0"]),
    ],
)
def test_each_profile_has_its_fastest_engine(
    first: list[float], names: list[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _timed(monkeypatch, first)
    chosen: list[tuple[int, ...]] = []
    fastest = measured_choice.fastest

    def noted(*args: Any) -> Any:
        found = fastest(*args)
        chosen.append(found[1])
        return found

    monkeypatch.setattr(measured_choice, "fastest", noted)
    eager = portrt.load(path).module()
    program = portrt.load(path).module()
    given = [X.repeat(rows, 1) for rows in (1, 4, 16, 2, 1)]
    wanted = [eager(x) for x in given]
    with policy(select="measured"):
        found = [program(x) for x in given]
    torch.testing.assert_close(found, wanted)

    assert [str(place) for place in chosen[-1]] == names
    assert runs[:2] == [2, 2]
    assert len(runs) == 2  # once for each profile


def test_times_are_cached_by_machine(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(tmp_path))
    runs = _timed(monkeypatch, [2.0, 0.5])
    with policy(select="measured"):
        for _ in range(2):
            portrt.load(path).module()(X)
        assert len(runs) == 2
        monkeypatch.setattr(timing, "cpu_name", lambda: "another")
        portrt.load(path).module()(X)
    assert len(runs) == 4


@pytest.mark.parametrize(
    ("change", "measures"),
    [
        ({}, False),
        ({"cpu": "another"}, True),
        ({"threads": 99}, True),
        ({"goal": "throughput"}, True),
        ({"sizes": []}, True),
        ({"sizes": 7}, True),
        ({"sizes": [1, None]}, True),
        ({"sizes": [{"seconds": "soon"}, {"seconds": -1.0}]}, True),
    ],
)
def test_times_in_the_file_count_on_a_machine_like_that(
    change: dict[str, Any],
    measures: bool,
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    editor = ProgramEditor(path)
    (call,) = editor.calls
    for engine, seconds in zip(call.entry["engines"], (3.0, 1.0), strict=True):
        sizes = [{"shapes": [[1, 8]], "seconds": seconds, "spread": 0.0}] * 2
        entry = {**timing.conditions("latency"), "ratio": 1.0, "sizes": sizes, **change}
        engine["build"] = {**engine["build"], "measured": entry}
    editor.write(tmp_path / "tuned.pt2", None)
    runs = _timed(monkeypatch, [2.0, 0.5])
    with policy(select="measured"):
        found = portrt.load(tmp_path / "tuned.pt2").module()(X)
    torch.testing.assert_close(found, portrt.load(path).module()(X))

    assert bool(runs) == measures


def test_the_policy_may_be_in_the_file_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert effective({}, None).select == "first"
    assert effective({"select": "measured"}, None).select == "measured"
    assert effective({"select": "slowest"}, None).select == "first"
    monkeypatch.setenv("PORTRT_SELECT", "measured")
    assert effective({}, None).select == "measured"
    assert effective({}, Policy(select="first")).select == "first"
    with pytest.raises(SettingsError, match="select"):
        Policy(select="slowest")
