"""`portrt bench`: in real processes, and on a clock that is told what a call takes."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import portrt_command
from tiny import shared
from torch import nn

import portrt
from portrt.files.bench import candidate, measure

SHORT = ("--rounds", "1", "--seconds", "0.1")
CPU = torch.device("cpu")


class Two(nn.Module):
    """One block, and something that stays in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x).relu().mean(1)
        return y + torch.nonzero(y > -1e9).shape[0]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    torch.export.save(shared("tensorrt_rtx", "onnxruntime"), folder / "a.pt2")
    program = portrt.compile(
        Two().eval(),
        inputs=[torch.randn(4, 8)],
        engines="onnxruntime",
        min_block_size=1,
        torch_executed_ops=["aten.nonzero"],
        output_format="exported_program",
    )
    portrt.save(program, folder / "two.pt2")
    return folder


def figures(room: Path, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        portrt_command("bench", *args, *SHORT, "--json", cwd=room).stdout
    )
    return found


def test_three_candidates(room: Path) -> None:
    found = figures(room, "a.pt2", "--threads", "2")
    assert list(found["contenders"]) == ["program", "eager", "bare onnxruntime"]
    engines = [item["engines"] for item in found["contenders"].values()]
    assert engines == [["onnxruntime"], ["eager"], ["onnxruntime"]]
    for item in found["contenders"].values():
        assert 0 < item["median_seconds"] <= item["p90_seconds"] <= item["p99_seconds"]
        assert item["calls"] >= 3
        assert item["calls_per_second"] >= 0  # on a busy machine no call may end in 0.1 s
    assert found["threads"] == 2


TICK_S = 1 / 1024


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders run in this process, and their clock goes on by a tick each time it is read."""

    def run(command: list[str], *, input: str, **_: Any) -> Any:  # noqa: A002
        assert command == [sys.executable, "-m", candidate.__name__]
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(input))
        with contextlib.redirect_stdout(out):
            candidate.main()
        return SimpleNamespace(stdout=out.getvalue(), stderr="", returncode=0)

    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) * TICK_S)
    monkeypatch.setattr(candidate, "time", clock)
    monkeypatch.setattr(measure, "subprocess", SimpleNamespace(run=run))


@pytest.mark.usefixtures("ticking")
def test_the_time_of_a_call_is_in_seconds(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures(room, "two.pt2")["contenders"]
    for name in ("program", "eager"):
        # The clock is read twice for each call, and from the fourth on that counts once more, to
        # ask whether 0.4 s are over. 0.3 s, which are 307.2 ticks, do not count.
        counted = 3 + len(range(313, 410, 3))
        item = found[name]
        assert (item["calls"], item["median_seconds"]) == (counted, TICK_S)
        assert (item["p90_seconds"], item["p99_seconds"]) == (TICK_S, TICK_S)
    assert "more" in found["bare onnxruntime"]["reason"]
    monkeypatch.setenv("COLUMNS", "250")
    done = portrt_command("bench", "two.pt2", *SHORT, cwd=room)
    (row,) = (line for line in done.stdout.splitlines() if "eager  " in line)
    assert row.count("0.977") == 3  # milliseconds
    assert "1.00" in row


def test_at_least_three_calls_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them takes longer than what was asked for."""
    now = [0.0]
    costs = itertools.count(10)

    def call() -> None:
        now[0] += next(costs)

    monkeypatch.setattr(candidate, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert candidate._latencies(call, CPU, 0.1) == [10, 11, 12]


def test_percentiles_are_over_calls_and_medians_over_rounds() -> None:
    def answer(scale: float) -> dict[str, Any]:
        latencies = [scale * number for number in range(100, 0, -1)]
        return {"engines": ["eager"], "latencies": latencies, "calls_per_second": 1 / scale}

    assert measure._summary([answer(1.0), answer(4.0), answer(2.0)]) == {
        "engines": ["eager"],
        "calls": 300,
        "median_seconds": 101.0,
        "p90_seconds": 182.0,
        "p99_seconds": 200.0,
        "calls_per_second": 0.5,
    }


def test_calls_of_several_threads_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that ended when the time is over: each thread has done five, and is in its sixth."""
    threads, each = 2, 5
    own = threading.local()
    busy = threading.Semaphore(0)
    waited: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if threading.current_thread() is threading.main_thread():
                waited.append(timeout or 0.0)
                for _ in range(threads):
                    assert busy.acquire(timeout=300)
                return False
            return super().wait(300)

    stops: list[Stop] = []

    def made() -> Stop:
        stops.append(Stop())
        return stops[0]

    def call() -> None:
        own.count = getattr(own, "count", 0) + 1
        if own.count == 1 + each + 1:  # the first one is before the time begins
            busy.release()
            stops[0].wait()

    kept = {name: getattr(threading, name) for name in ("Thread", "Barrier", "BrokenBarrierError")}
    times = iter([10.0, 14.0])
    monkeypatch.setattr(candidate, "threading", SimpleNamespace(**kept, Event=made))
    monkeypatch.setattr(candidate, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    job = {"threads": threads, "trust": "", "engine": None, "seconds": 0.1}
    assert candidate._throughput(call, CPU, job) == threads * each / 4
    assert waited == [0.1]


def test_given_inputs_and_one_engine(room: Path) -> None:
    np.save(room / "x.npy", np.ones((2, 8), np.float32))
    found = figures(room, "a.pt2", "x.npy", "--engine", "eager")
    assert list(found["contenders"]) == ["program"]
    assert found["contenders"]["program"]["engines"] == ["eager"]


def test_the_table(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    done = portrt_command("bench", "two.pt2", *SHORT, cwd=room)
    assert "not run: a bare session runs one block alone" in done.stdout
    assert "1 processes each, in turn, on" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if "program  " in line)
    assert "1.00" in row


def test_errors_are_those_of_the_call(room: Path) -> None:
    for args, message in (
        (("nothing.pt2",), "there is no file"),
        (("a.pt2", "--threads", "0"), "threads is 0"),
        (("a.pt2", "--seconds", "nan"), "seconds is nan"),
        (("a.pt2", "--seconds", "inf"), "seconds is inf"),
        (("a.pt2", "--engine", "onnx"), "'onnx'"),
        (("a.pt2", "--engine", "tensorrt_rtx"), "no engine of block_0 can run here"),
        (("a.pt2", "--shape", "x=99x8"), "'x'"),
    ):
        done = portrt_command("bench", *args, cwd=room, code=2)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
