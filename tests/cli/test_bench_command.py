"""`portrt bench`: in real processes, against clocks of ours and what the files say."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import portrt_command
from tiny import shared
from torch import nn

import portrt

SHORT = ("--rounds", "1", "--seconds", "0.1")


class Heavy(nn.Module):
    """One product of 2 * 512 * 2048 * 2048 operations, and something that stays in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2048, 2048)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x).relu().mean(1)
        return y + torch.nonzero(y > -1e9).shape[0]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    torch.export.save(shared("tensorrt_rtx", "onnxruntime"), folder / "a.pt2")
    program = portrt.compile(
        Heavy().eval(),
        inputs=[torch.randn(512, 2048)],
        engines="onnxruntime",
        min_block_size=1,
        torch_executed_ops=["aten.nonzero"],
        output_format="exported_program",
    )
    portrt.save(program, folder / "heavy.pt2")
    return folder


def figures(room: Path, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        portrt_command("bench", *args, *SHORT, "--json", cwd=room).stdout
    )
    return found


def test_three_contenders(room: Path) -> None:
    found = figures(room, "a.pt2", "--threads", "2")
    assert list(found["contenders"]) == ["program", "eager", "bare onnxruntime"]
    engines = [item["engines"] for item in found["contenders"].values()]
    assert engines == [["onnxruntime"], ["eager"], ["onnxruntime"]]
    for item in found["contenders"].values():
        assert 0 < item["median_seconds"] <= item["p90_seconds"] <= item["p99_seconds"]
        # Half of the calls took the median or longer, in 0.1 s and the end of the last call.
        assert item["calls"] * item["median_seconds"] / 2 < 2
        assert item["calls_per_second"] > 0
    assert found["threads"] == 2


def test_units_are_seconds(room: Path) -> None:
    """A call cannot be faster than a teraflop of each of a thousand cores would be, nor slower
    than the whole process."""
    started = time.perf_counter()
    found = figures(room, "heavy.pt2")["contenders"]
    wall = time.perf_counter() - started
    for name in ("program", "eager"):
        assert 2 * 512 * 2048 * 2048 / 1e15 < found[name]["median_seconds"] < wall
    assert "more" in found["bare onnxruntime"]["reason"]


def test_given_inputs_and_one_engine(room: Path) -> None:
    np.save(room / "x.npy", np.ones((2, 8), np.float32))
    found = figures(room, "a.pt2", "x.npy", "--engine", "eager")
    assert list(found["contenders"]) == ["program"]
    assert found["contenders"]["program"]["engines"] == ["eager"]


def test_the_table(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    done = portrt_command("bench", "heavy.pt2", *SHORT, cwd=room)
    assert "not run: a bare session runs one block alone" in done.stdout
    assert "1 processes each, in turn, on" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if "program  " in line)
    assert "1.00" in row


def test_errors_are_those_of_the_call(room: Path) -> None:
    for args, message in (
        (("nothing.pt2",), "there is no file"),
        (("a.pt2", "--threads", "0"), "0 threads"),
        (("a.pt2", "--seconds", "nan"), "nan seconds"),
        (("a.pt2", "--seconds", "inf"), "inf seconds"),
        (("a.pt2", "--engine", "onnx"), "'onnx'"),
        (("a.pt2", "--engine", "tensorrt_rtx"), "no engine of block_0 can run here"),
        (("a.pt2", "--shape", "x=99x8"), "'x'"),
    ):
        done = portrt_command("bench", *args, cwd=room, code=2)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
