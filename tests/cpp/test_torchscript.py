"""A program as TorchScript in a process without Python, by the example's `main`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import tiny
import torch
from example_programs import compiled
from torch import nn

import portrt
from portrt.cpp.build import Built
from portrt.runtime.calls import engine_calls


@pytest.fixture(scope="module")
def main(built: Built) -> Path:
    """The example's program, compiled once for the same source and torch."""
    made_with = "\n".join([built.torch.version, *built.flags]).encode()
    return compiled(built, "torchscript", built.flags, made_with)


def called(
    main: Path, built: Built, folder: Path, inputs: list[torch.Tensor]
) -> subprocess.CompletedProcess[str]:
    torch.save(inputs, folder / "inputs.pt")
    paths = [built.library, *(folder / name for name in ("model.ts", "inputs.pt", "outputs.pt"))]
    loader = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(folder / "loaded")}
    return subprocess.run(
        [main, *paths], capture_output=True, text=True, env={**os.environ, **loader}
    )


def test_numbers_and_errors(main: Path, built: Built, tmp_path: Path) -> None:
    """Torch moves the blobs out of a constant list at the first call: there are several."""
    model = tiny.model()
    batch = portrt.Input(min_shape=(1, 8), opt_shape=(3, 8), max_shape=(16, 8))
    options = {"engines": "onnxruntime", "output_format": "exported_program"}
    program = portrt.compile(model, inputs=[batch], **options)
    portrt.save(program, tmp_path / "model.ts", output_format="torchscript")
    inputs = [*(torch.randn(rows, 8) for rows in (1, 16, 3, 1)), torch.randn(8, 5).t()]
    done = called(main, built, tmp_path, inputs)
    assert done.returncode == 0, done.stderr[:2000]
    outputs = list(torch.load(tmp_path / "outputs.pt"))
    torch.testing.assert_close(outputs, [model(x).detach() for x in inputs])
    (loaded,) = tmp_path.glob("loaded.*")
    opened = loaded.read_text(encoding="utf-8")
    assert "libonnxruntime" in opened
    for name in ("libpython", "libtorch_python", ".cpython-"):
        assert name not in opened
    done = called(main, built, tmp_path, [torch.randn(17, 8)])
    assert done.returncode == 1
    assert "input 'x' of block_0 has shape (17, 8)" in done.stderr
    assert "Expected: a size from 1 to 16 in dimension 0" in done.stderr


class Cut(nn.Module):
    """Two blocks around an operator that stays in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)).cumsum(1)) * 2


def test_several_blocks(main: Path, built: Built, tmp_path: Path) -> None:
    model, x = Cut().eval(), torch.randn(2, 3, 8, 8)
    program = portrt.compile(
        model,
        inputs=[x],
        engines="onnxruntime",
        min_block_size=1,
        torch_executed_ops={"torch.ops.aten.cumsum.default"},
        output_format="exported_program",
    )
    assert len(list(engine_calls(program))) == 2
    portrt.save(program, tmp_path / "model.ts", output_format="torchscript")
    done = called(main, built, tmp_path, [x, -x, x])
    assert done.returncode == 0, done.stderr[:2000]
    outputs = list(torch.load(tmp_path / "outputs.pt"))
    torch.testing.assert_close(outputs, [model(item).detach() for item in (x, -x, x)])
