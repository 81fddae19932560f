"""Files that were written once, by the versions in their names, load and run today."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_plans import FakeBackend
from tiny import edit_program

import portrt
from portrt.engines import registry
from portrt.format.manifest import FORMAT, OLDEST_FORMAT

FOLDER = Path(__file__).parent / "files"
FILES = sorted(FOLDER.glob("format-1-*.pt2"))
IN_PARTS = sorted(FOLDER.glob("format-3-*.pt2"))
UNKNOWN_SIZES = sorted(FOLDER.glob("format-2-*.pt2"))


def test_every_format_version_has_a_file() -> None:
    versions = {int(re.findall(r"format-(\d+)", path.name)[0]) for path in FOLDER.glob("*.pt2")}
    assert versions == set(range(OLDEST_FORMAT, FORMAT + 1))


def expected(x: np.ndarray, calls: int) -> np.ndarray:
    """What tests/compat/make.py says of its network."""
    weight = (np.arange(4)[:, None] - np.arange(3)[None, :]) / 8
    return np.asarray(np.maximum(x @ weight + np.arange(3) / 4, 0) * calls)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("load", [portrt.load, torch.export.load], ids=["portrt", "torch"])
def test_stored_file_runs_as_an_engine(load: Callable[[Path], Any], path: Path) -> None:
    program = load(path)
    module = program.module()
    assert {block.runs_as for block in portrt.runtime.report(program)} == {"onnxruntime"}
    for calls, batch in enumerate((1, 5, 64), 1):
        x = np.random.default_rng(batch).normal(size=(batch, 4)).astype(np.float32)
        found = module(torch.from_numpy(x))["y"].numpy()
        np.testing.assert_allclose(found, expected(x, calls), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_source_runs_in_pytorch(path: Path) -> None:
    module = portrt.load(path, engines=[], fallback="eager").module()
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    with pytest.warns(UserWarning, match="runs in PyTorch"):
        found = module(torch.from_numpy(x))["y"].numpy()
    np.testing.assert_allclose(found, expected(x, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", [*FILES, *UNKNOWN_SIZES], ids=lambda path: path.stem)
def test_stored_file_is_verified_inspected_and_saved_again(path: Path, tmp_path: Path) -> None:
    program = portrt.load(path, verify=True)
    portrt.save(program, tmp_path / "again.pt2")
    before, after = portrt.inspect(path).to_json(), portrt.inspect(tmp_path / "again.pt2").to_json()
    assert before["blocks"] == after["blocks"]


@pytest.mark.parametrize("path", UNKNOWN_SIZES, ids=lambda path: path.stem)
@pytest.mark.parametrize("load", [portrt.load, torch.export.load], ids=["portrt", "torch"])
def test_stored_file_with_unknown_sizes_runs(
    load: Callable[[Path], Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a fake: its plan is none that anything can run."""
    fake = FakeBackend()
    fake.answer = lambda x: [x[x[:, 0] > 0], x.sum(1)]
    monkeypatch.setattr(registry, "runtime", lambda _: fake)
    program = load(path)
    edit_program(program, lambda entry: entry["engines"][0]["requires"].update(device=["cpu"]))
    module = program.module()
    for batch in (1, 2, 5, 64):
        x = torch.randn(batch, 4, generator=torch.Generator().manual_seed(batch))
        y, total = module(x)
        torch.testing.assert_close(y, x[x[:, 0] > 0], rtol=0, atol=0)
        torch.testing.assert_close(total, x.sum(1), rtol=0, atol=0)


@pytest.mark.parametrize("path", IN_PARTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("load", [portrt.load, torch.export.load], ids=["portrt", "torch"])
def test_stored_engine_in_parts_runs(load: Callable[[Path], Any], path: Path) -> None:
    program = load(path)
    (block,) = portrt.runtime.report(program)
    assert block.runs_as == "onnxruntime"
    assert block.verdicts[0][1].reason.startswith("in 2 parts, with 1 of ")
    for rows in (1, 5):
        x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
        found = program.module()(torch.from_numpy(x))
        y = expected(x, 1)
        np.testing.assert_allclose(found["y"].numpy(), y, rtol=1e-6)
        assert found["product"].tolist() == ((y * 8).astype(np.int64).prod(1) + 1).tolist()
