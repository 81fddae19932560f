"""Writes the files of this version of portrt and torch: `python tests/compat/make.py`.

A file is written once, when a format version or a torch release line is new, and never again: it
stands for the files that users have.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import portrt
from portrt import files

sys.path.insert(0, str(Path(__file__).parent.parent))

import picky_backend
from fake_plans import tensorrt_plan

FILES = Path(__file__).parent / "files"


class Network(torch.nn.Module):
    """relu(x W + b) * number of calls so far; W[i, j] = (i - j) / 8, b[j] = j / 4."""

    def __init__(self) -> None:
        super().__init__()
        row, column = torch.arange(4.0)[:, None], torch.arange(3.0)[None, :]
        self.weight = torch.nn.Parameter((row - column) / 8)
        self.bias = torch.nn.Parameter(torch.arange(3.0) / 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"y": torch.relu(x @ self.weight + self.bias) * self.calls}


def compiled() -> Any:
    """Format 1: a network, as an engine of ONNX Runtime and its source."""
    return portrt.compile(
        Network().eval(),
        inputs=[torch.ones(2, 4)],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        engines="onnxruntime",
        min_block_size=1,
        cache_built_engines=False,
        reuse_cached_engines=False,
        output_format="exported_program",
    )


def adopted() -> Any:
    """Format 2: what nothing can run, with an output of n rows, as the data decides, to 64."""

    def outputs(x: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = torch.library.get_ctx().new_dynamic_size(max=64)
        return {"y": x.new_empty(rows, 4), "total": x.new_empty(x.shape[0])}

    return portrt.from_plan(
        tensorrt_plan(),
        {"x": torch.ones(2, 4)},
        outputs,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        output_format="exported_program",
    )


class Product(torch.nn.Module):
    """relu(x W + b) as above, and the product of each row times 8 in integers, plus one."""

    def __init__(self) -> None:
        super().__init__()
        row, column = torch.arange(4.0)[:, None], torch.arange(3.0)[None, :]
        self.weight = torch.nn.Parameter((row - column) / 8)
        self.bias = torch.nn.Parameter(torch.arange(3.0) / 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.relu(x @ self.weight + self.bias)
        return {"y": y, "product": (y * 8).to(torch.int64).prod(1) + 1}


def in_parts() -> Any:
    """Format 3: an engine of ONNX Runtime in parts, and the source: PyTorch multiplies integers."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        picky_backend.register(patch, takes=["aten.prod.dim_int"])
        program = portrt.compile(
            Product().eval(),
            inputs=[torch.ones(2, 4)],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
            engines=("picky", "onnxruntime"),
            min_block_size=1,
            cache_built_engines=False,
            reuse_cached_engines=False,
            output_format="exported_program",
        )
        path = Path(folder) / "model.pt2"
        portrt.save(program, path)
        files.strip(path, engine="picky")
        return torch.export.load(path)


def main() -> None:
    version = str(torch.__version__).partition("+")[0]
    for number, make in ((1, compiled), (2, adopted), (3, in_parts)):
        path = FILES / f"format-{number}-torch-{version}.pt2"
        if path.exists():
            sys.stdout.write(f"{path.name} is there, and stays as it is\n")
            continue
        torch.export.save(make(), path)
        sys.stdout.write(f"wrote {path.name}, {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
