"""The choice by measurement: candidates, order, figures, budget; and `tune` of a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.export import ExportedProgram

import portrt
from portrt import files
from portrt.cli import cli
from portrt.compiler.building import tasks
from portrt.errors import SettingsError
from portrt.files import tune_file
from portrt.format.manifest import decode
from portrt.runtime import timing
from portrt.runtime.calls import manifests_of
from portrt.targets import backends

GOALS = ("latency", "throughput", "size")


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).softmax(-1)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return _Model().eval()


def _compiled(model: nn.Module, **options: Any) -> ExportedProgram:
    profiles = [((1, 16),) * 3, ((2, 16), (32, 16), (64, 16))]
    return portrt.compile(
        model,
        inputs=[portrt.Input(profiles=profiles)],
        min_block_size=1,
        output_format="exported_program",
        **options,
    )


# Two engines that every machine builds, of which one is slower: it has the model's extremes twice.
_TWO = [{"backend": "onnxruntime", "numerics": "fast"}, "onnxruntime"]


def _slower(monkeypatch: pytest.MonkeyPatch, label: str) -> None:
    """Let the session of this label take a known time."""
    in_turn = timing._in_turn

    def timed(calls: Any, goal: Any, budget_s: float) -> dict[str, list[float]]:
        found = in_turn(calls, goal, 0.0)
        return {name: [1.0 + (name == label)] * len(times) for name, times in found.items()}

    monkeypatch.setattr(timing, "_in_turn", timed)


@pytest.mark.parametrize("goal", GOALS)
def test_engines_are_in_the_order_of_what_was_measured(
    goal: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _slower(monkeypatch, "onnxruntime (1)")
    program = _compiled(model, engines=_TWO, optimize_for=goal, cache_dir="off")
    engines = decode(manifests_of(program)[0]).engines
    printed = capsys.readouterr().out
    x = torch.randn(7, 16)

    torch.testing.assert_close(program.module()(x), model(x))
    found = [engine.build["measured"] for engine in engines]
    assert {entry["goal"] for entry in found} == {goal}
    if goal == "size":
        assert [entry["bytes"] for entry in found] == sorted(engine.data.size for engine in engines)
        return
    assert [engine.build.get("numerics") for engine in engines] == [None, "fast"]
    assert [entry["ratio"] for entry in found] == [1.0, 2.0]
    shapes = [[size["shapes"] for size in entry["sizes"]] for entry in found]
    assert shapes == [[[[1, 16]], [[32, 16]]]] * 2
    assert [size["seconds"] for size in found[1]["sizes"]] == [2.0, 2.0]
    assert found[0]["threads"] == torch.get_num_threads()
    assert "onnxruntime (1)          2.00" in printed


def test_candidates_are_the_backends_that_run_here(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name in backends.names() if name != "inductor"]  # it takes half a minute
    monkeypatch.setattr(backends, "names", lambda: names)
    program = _compiled(model, optimize_for="size", cache_dir="off")
    found = [engine.backend for engine in decode(manifests_of(program)[0]).engines]
    able = {status.name for status in portrt.doctor().backends if status.builds}
    able &= {status.name for status in portrt.doctor().backends if status.runs["cpu"]}

    assert set(found) == able & set(names)
    named = _compiled(model, optimize_for="size", engines="onnxruntime", cache_dir="off")
    assert [engine.backend for engine in decode(manifests_of(named)[0]).engines] == ["onnxruntime"]


def test_candidates_beyond_the_budget_are_left_out_and_named(
    model: nn.Module, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "time", _Late())
    program = _compiled(model, engines=_TWO, optimize_for="latency", optimize_budget=5.0)
    (engine,) = decode(manifests_of(program)[0]).engines

    assert engine.build["numerics"] == "fast"
    assert "time for candidates is spent" in caplog.text


class _Late:
    """A clock on which every question comes ten seconds later."""

    def __init__(self) -> None:
        self._now = 0.0

    def perf_counter(self) -> float:
        self._now += 10.0
        return self._now


def test_unknown_goals_are_refused(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="optimize_for"):
        _compiled(model, optimize_for="speed")
    with pytest.raises(SettingsError, match="optimize_for"):
        files.tune(tmp_path / "none.pt2", "speed")


def test_tune_orders_the_engines_of_a_file(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "model.pt2", tmp_path / "tuned.pt2"
    torch.export.save(_compiled(model, engines=_TWO), path)
    _slower(monkeypatch, "onnxruntime (1)")
    run = CliRunner().invoke(cli, ["tune", str(path), "-o", str(other), "--seconds", "0.1"])

    assert run.exit_code == 0, run.output
    before, after = (decode(manifests_of(portrt.load(p))[0]).engines for p in (path, other))
    assert [engine.build.get("numerics") for engine in before] == ["fast", None]
    assert [engine.build.get("numerics") for engine in after] == [None, "fast"]
    assert [engine.data.sha256 for engine in after] == [e.data.sha256 for e in reversed(before)]
    assert [engine.build["measured"]["ratio"] for engine in after] == [1.0, 2.0]
    assert "PyTorch" in run.output
    json.dumps(after[0].build)
    x = torch.randn(3, 16)
    torch.testing.assert_close(portrt.load(other).module()(x), model(x))


def test_tune_leaves_wrong_engines_for_last(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt2"
    wrong = {"backend": "onnxruntime", "numerics": "fast"}
    torch.export.save(_compiled(model, engines=[wrong, "onnxruntime"]), path)
    verify = tune_file.verify

    def as_if_wrong(*args: Any, **options: Any) -> Any:
        found = verify(*args, **options)
        (block,) = found.blocks
        rows = tuple({**row, "ok": False} for row in block.engines[0].outputs)
        first = dataclasses.replace(block.engines[0], outputs=rows)
        block = dataclasses.replace(block, engines=(first, *block.engines[1:]))
        return dataclasses.replace(found, blocks=(block,))

    monkeypatch.setattr(tune_file, "verify", as_if_wrong)
    (block,) = files.tune(path, seconds=0.1)
    engines = decode(manifests_of(portrt.load(path))[0]).engines

    assert [engine.build.get("numerics") for engine in engines] == [None, "fast"]
    assert "measured" not in engines[1].build
    assert set(block.figures) == {"onnxruntime (2)", "PyTorch"}
