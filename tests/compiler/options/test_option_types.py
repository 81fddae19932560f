"""A type checker knows the options of `compile`: their names and the kinds of their values."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import portrt

pytest.importorskip("mypy")

SNIPPET = """
import torch
import portrt

model = torch.nn.Linear(2, 2)
portrt.compile(
    model,
    inputs=[torch.ones(1, 2)],
    engines=["onnxruntime", {"backend": "tensorrt_rtx", "target_compute_capabilities": ["7.5"]}],
    precision="fp16",
    torch_executed_ops={torch.ops.aten.relu.default, "aten.relu"},
    optimization_level=3,
    use_python_runtime=True,
)
portrt.compile(model, "dynamo", arg_inputs=[], output_format="exported_program", dryrun=True)
portrt.Settings(min_block_size=1, workspace_size=1 << 20)
portrt.files.add_engine("a.pt2", {"backend": "tensorrt"}, precision=None, builder_python="python")
portrt.files.add_engine("a.pt2", "tensorrt", dryrun=True)  # error: Unexpected keyword
portrt.compile(model, min_blocksize=1)  # error: did you mean "min_block_size"
portrt.compile(model, optimization_level="3")  # error: No overload variant
portrt.compile(model, check="never")  # error: No overload variant
portrt.compile(model, output_format="onnx")  # error: No overload variant
portrt.Settings(optimisation_level=3)  # error: did you mean "optimization_level"
"""
# Only what the options are made of: torch and the rest of portrt take a minute.
CONFIG = """
[mypy]
mypy_path = {source}
cache_dir = {cache}
follow_imports = skip
[mypy-portrt,portrt.arguments,portrt.compiler.compile,portrt.compiler.options.*,portrt.files.*]
follow_imports = silent
"""


def test_a_wrong_option_is_an_error_of_types_and_a_right_one_is_none(tmp_path: Path) -> None:
    source = Path(str(portrt.__file__)).parents[1]
    (tmp_path / "mypy.ini").write_text(CONFIG.format(source=source, cache=tmp_path / "cache"))
    (tmp_path / "snippet.py").write_text(SNIPPET)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "snippet.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^snippet\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    wanted = {
        number: line.partition("# error: ")[2]
        for number, line in enumerate(SNIPPET.splitlines(), 1)
        if "# error: " in line
    }
    assert {int(number) for number, _ in found} == wanted.keys(), done.stdout + done.stderr
    for number, text in wanted.items():
        assert any(text in message for line, message in found if int(line) == number), text
