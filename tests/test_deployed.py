"""A process that runs a saved program imports the run side alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import python, shared

TESTS = Path(__file__).parent

# Records which libraries our modules import; torch itself imports sympy.
WATCH = """
import builtins, json, runpy, sys
import torch
real, taken = builtins.__import__, set()
def watched(name, globals=None, *args, **kwargs):
    by = str((globals or {}).get("__name__"))
    if by.partition(".")[0] == "portrt" and name.partition(".")[0] != "portrt":
        taken.add(name.partition(".")[0])
    return real(name, globals, *args, **kwargs)
builtins.__import__ = watched
"""
TELL = """
ours = {name: module.__file__ for name, module in sys.modules.items()
        if name.partition(".")[0] == "portrt"}
lines = sum(len(open(path, encoding="utf-8").readlines()) for path in ours.values())
print(json.dumps({"ours": sorted(ours), "lines": lines, "taken": sorted(taken),
                  "there": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def deployed(code: str, *args: str, **env: str) -> dict[str, Any]:
    done = python(f"{WATCH}\n{code}\n{TELL}", *args, **env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("deployed") / "tiny.pt2"
    torch.export.save(shared("onnxruntime"), path)
    return str(path)


def test_an_onnxruntime_engine_runs_without_the_compiler(file: str) -> None:
    found = deployed("torch.export.load(sys.argv[1]).module()(torch.ones(2, 8))", file)
    assert "portrt.engines.onnxruntime.session" in found["ours"]
    assert not [name for name in found["ours"] if name.startswith("portrt.compiler")]
    assert not {"onnx", "onnx_ir", "onnxscript"} & set(found["there"])
    assert "sympy" not in found["taken"]
    assert found["lines"] < 5000


def test_a_loaded_module_runs_without_the_compiler(file: str) -> None:
    """The mapped way, with digests checked."""
    code = "import portrt\nportrt.load(sys.argv[1], output_format='module')(torch.ones(2, 8))"
    found = deployed(code, file)
    assert "portrt.runtime.load" in found["ours"]
    assert not [name for name in found["ours"] if name.startswith("portrt.compiler")]
    assert not {"onnx", "onnx_ir", "onnxscript"} & set(found["there"])


def test_a_tensorrt_engine_runs_without_the_compiler() -> None:
    """On the fake library: what is imported is the same."""
    folder = TESTS / "engines" / "tensorrt"
    path = os.pathsep.join([str(folder), str(TESTS), os.environ.get("PYTHONPATH", "")])
    code = "runpy.run_path(sys.argv[1])"
    found = deployed(code, str(folder / "deployed.py"), PYTHONPATH=path)
    assert "portrt.engines.tensorrt.session" in found["ours"]
    assert "portrt.engines.tensorrt.runtime" in found["ours"]
    assert not [name for name in found["ours"] if name.startswith("portrt.compiler")]
    assert not {"onnx", "onnx_ir", "onnxscript"} & set(found["there"])
    assert "sympy" not in found["taken"]
