"""portrt.inspect: what is in a file, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from torch.export import ExportedProgram

import portrt


def test_says_what_is_in_the_file(saved: Path, program: ExportedProgram) -> None:
    info = portrt.inspect(saved)
    (block,) = info.blocks
    (engine,) = block.engines
    sizes = {name: value.numel() for name, value in program.constants.items()}
    assert info.file_bytes == saved.stat().st_size
    assert info.weights_bytes == sizes["portrt_weights"]
    assert block.source_bytes == sizes["portrt_block_0_source"]
    assert engine["bytes"] == sizes["portrt_block_0_engine_0_onnxruntime"]
    assert engine["backend"] == engine["build"]["library"] == "onnxruntime"
    assert block.producer["torch"] == torch.__version__
    assert [spec["name"] for spec in block.inputs] == ["input"]
    assert block.inputs[0]["shape"][0].endswith(": 1..3..64")
    assert block.outputs[0]["shape"][1] == 4


def test_is_plain_json(saved: Path) -> None:
    assert json.loads(json.dumps(portrt.inspect(saved).to_json()))["blocks"][0]["name"] == "block_0"


def test_sizes_are_written_as_people_do(tmp_path: Path) -> None:
    class Join(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.relu(torch.cat([x, y]))[::2]

    dims = tuple({0: torch.export.Dim(name, min=2, max=9)} for name in "ab")
    program = portrt.compile(
        Join().eval(),
        inputs=[torch.randn(3, 2), torch.randn(4, 2)],
        dynamic_shapes=dims,
        engines="onnxruntime",
        output_format="exported_program",
    )
    portrt.save(program, tmp_path / "a.pt2")
    (block,) = portrt.inspect(tmp_path / "a.pt2").blocks
    symbols = [spec["shape"][0].partition(":")[0] for spec in block.inputs]
    size = block.outputs[0]["shape"][0]
    assert all(symbol in size for symbol in symbols)
    assert "+" in size
    assert "//" in size


def test_needs_no_torch(saved: Path) -> None:
    code = (
        "import sys, portrt\n"
        "from portrt.files.inspect_file import inspect\n"
        "assert inspect(sys.argv[1]).blocks\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code, saved], check=True)
