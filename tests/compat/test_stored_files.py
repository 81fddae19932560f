"""Files that were written once, by the versions in their names, load and run today."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import portrt
from portrt.package.manifest import FORMAT, OLDEST_FORMAT

FILES = sorted((Path(__file__).parent / "files").glob("*.pt2"))


def test_every_format_version_has_a_file() -> None:
    versions = {int(re.findall(r"format-(\d+)", path.name)[0]) for path in FILES}
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_file_is_verified_inspected_and_saved_again(path: Path, tmp_path: Path) -> None:
    program = portrt.load(path, verify=True)
    portrt.save(program, tmp_path / "again.pt2")
    before, after = portrt.inspect(path).to_json(), portrt.inspect(tmp_path / "again.pt2").to_json()
    assert before["blocks"] == after["blocks"]
