"""`portrt profile`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import portrt_command
from tiny import shared

from portrt.files.profiling import measure


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one compiled file."""
    folder = tmp_path_factory.mktemp("profile")
    torch.export.save(shared("tensorrt_rtx", "onnxruntime"), folder / "a.pt2")
    return folder


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_table(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of times that are told: the second layer takes three times as long as the first."""
    real = measure.profile

    def told(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        (block,) = found.blocks
        times = zip(block.layers, (0.001, 0.003), strict=True)
        layers = tuple(replace(layer, seconds=seconds) for layer, seconds in times)
        blocks = (replace(block, layers=layers, call_seconds=0.0035),)
        return replace(found, blocks=blocks, call_seconds=0.005)

    monkeypatch.setattr(measure, "profile", told)
    done = portrt_command("profile", "a.pt2", "--calls", "2", cwd=room)
    assert "block_0 (onnxruntime): 2 layers" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if "FusedGemm" in line)
    for part in ("linear, relu", "1.000", "25.0%"):
        assert part in row
    (other,) = (line for line in done.stdout.splitlines() if "75.0%" in line)
    assert "3.000" in other
    assert done.stdout.index(other) < done.stdout.index(row)
    assert "the layers take 4.000 ms" in done.stdout
    assert "a plain call, with no layer timed, takes 3.500 ms" in done.stdout
    assert "a plain call of the whole program takes 5.000 ms" in done.stdout
    assert "100% of the layers' time is mapped to nodes" in done.stdout
    assert "medians of 2 calls on" in done.stdout
    assert "x 4x8" in done.stdout


def test_rows_are_sorted_and_counted(room: Path) -> None:
    options = ["--engine", "eager", "--calls", "2", "--order", "execution", "--top", "2"]
    done = portrt_command("profile", "a.pt2", *options, cwd=room)
    assert "block_0 (eager): 3 layers, 2 of them here" in done.stdout
    assert done.stdout.index("linear") < done.stdout.index("relu")
    assert "linear_1" not in done.stdout
    every = portrt_command("profile", "a.pt2", *options[:-1], "0", cwd=room).stdout
    assert "linear_1" in every
    assert "of them here" not in every


def test_json_and_page(room: Path) -> None:
    options = ["--shape", "x=7x8", "--calls", "2"]
    done = portrt_command("profile", "a.pt2", *options, "--json", "-", cwd=room)
    raw = json.loads(done.stdout)
    assert raw["inputs"][0]["shape"] == [7, 8]
    files = ["--json", "a.json", "--html", "a.html"]
    done = portrt_command("profile", "a.pt2", *options, *files, cwd=room)
    assert "wrote a.json\nwrote a.html\n" in done.stdout
    written = json.loads((room / "a.json").read_text())
    assert [layer["name"] for layer in written["blocks"][0]["layers"]] == [
        layer["name"] for layer in raw["blocks"][0]["layers"]
    ]
    assert (room / "a.html").read_text().startswith("<!doctype html>")


def test_given_inputs(room: Path) -> None:
    np.save(room / "x.npy", np.ones((2, 8), np.float32))
    done = portrt_command("profile", "a.pt2", "x.npy", "--calls", "1", "--json", "-", cwd=room)
    assert json.loads(done.stdout)["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": [2, 8], "random": False}
    ]


def test_errors_are_messages(room: Path) -> None:
    for args, message in (
        (("nothing.pt2",), "there is no file"),
        (("a.pt2", "--engine", "onnx"), "'onnx'"),
        (("a.pt2", "--engine", "tensorrt_rtx"), "no engine of block_0 can run here"),
        (("a.pt2", "--shape", "x=axb"), "--shape 'x=axb' is not understood"),
        (("a.pt2", "--shape", "y=2x8"), "'y'"),
        (("a.pt2", "--calls", "0"), "calls is 0"),
        (("a.pt2", "--calls", "1", "--html", "no/such/folder.html"), "cannot be written"),
    ):
        done = portrt_command("profile", *args, cwd=room, code=2)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (room / "no").exists()
