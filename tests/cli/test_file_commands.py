"""The commands that ask and change files: check, add-engine, strip, extract, verify."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_cli import portrt_command
from tiny import model, shared

import portrt
from portrt.format.editor import ProgramEditor
from portrt.format.manifest import Blob


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "a.pt2"
    torch.export.save(shared("tensorrt_rtx", "onnxruntime"), path)
    return path


@pytest.fixture
def copy(file: Path, tmp_path: Path) -> Path:
    (tmp_path / "a.pt2").write_bytes(file.read_bytes())
    return tmp_path / "a.pt2"


def engines(path: Path) -> list[str]:
    return [engine["backend"] for engine in portrt.inspect(path).blocks[0].engines]


@pytest.mark.parametrize(
    ("targets", "code"),
    [
        ([], 0),
        (["os=linux,arch=x86_64"], 0),
        (["onnxruntime=none"], 1),
        (["os=linux", "onnxruntime=none"], 1),
    ],
)
def test_check_tells_by_its_exit_code(file: Path, targets: list[str], code: int) -> None:
    options = [word for target in targets for word in ("--for", target)]
    done = portrt_command("check", file, *options, cwd=file.parent, code=code)
    assert "tensorrt_rtx: no: " in done.stdout
    listed = json.loads(
        portrt_command("check", file, *options, "--json", cwd=file.parent, code=code).stdout
    )
    assert len(listed) == max(len(targets), 1)
    assert listed[-1]["outcome"] == ("engine", "fallback", "cannot")[code]


def test_check_of_what_cannot_run(copy: Path) -> None:
    portrt_command("strip", copy, "--source", cwd=copy.parent)
    done = portrt_command("check", copy, "--for", "onnxruntime=none", cwd=copy.parent, code=2)
    assert "cannot run" in done.stdout
    assert "the file has no source" in done.stdout
    bad = portrt_command("check", copy, "--for", "sm=huge", cwd=copy.parent, code=2)
    assert "is not understood" in bad.stderr


def test_check_in_a_process_of_its_own_imports_no_torch(file: Path) -> None:
    for command in (["check", str(file), "--for", "sm=89"], ["inspect", str(file)]):
        code = (
            "import sys\nfrom portrt.cli import cli\n"
            f"cli({command}, standalone_mode=False) if {command[0] == 'inspect'} else None\n"
            "try:\n    cli.main(" + repr(command) + ", standalone_mode=False)\n"
            "except SystemExit as stop:\n    assert stop.code == 0\n"
            "assert not {'torch', 'numpy'} & set(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_strip_add_and_verify(copy: Path) -> None:
    portrt_command("strip", copy, "--keep", "tensorrt_rtx", "-o", "b.pt2", cwd=copy.parent)
    other = copy.with_name("b.pt2")
    assert engines(other) == ["tensorrt_rtx"]
    assert engines(copy) == ["tensorrt_rtx", "onnxruntime"]
    portrt_command("add-engine", other, "--engine", "onnxruntime", "--first", cwd=copy.parent)
    assert engines(other) == ["onnxruntime", "tensorrt_rtx"]
    assert "ok" in portrt_command("verify", other, cwd=copy.parent).stdout
    np.save(copy.with_name("x.npy"), np.ones((2, 8), np.float32))
    done = portrt_command("verify", other, "x.npy", "--json", cwd=copy.parent)
    assert json.loads(done.stdout)["compared"] == 1
    x = torch.randn(3, 8)
    torch.testing.assert_close(torch.export.load(other).module()(x), model()(x))


def test_verify_tells_a_broken_engine_by_its_exit_code(copy: Path) -> None:
    draft = ProgramEditor(copy)
    (call,) = draft.calls
    entry = {k: v for k, v in call.entry["engines"][1].items() if k != "data"}
    entry["data"] = Blob.of(len(call.blobs), b"junk").to_json()
    call.add_engine(entry, [draft.add_blob(call, "engine", b"junk")], first=False)
    draft.write(copy, None)
    assert "FAILED" in portrt_command("verify", copy, cwd=copy.parent, code=1).stdout


def test_targets_of_add_engine(copy: Path) -> None:
    options = ["--engine", "tensorrt_rtx", "--target", "sm_86,89", "--target", "12.0"]
    portrt_command("add-engine", copy, *options, cwd=copy.parent)
    (block,) = portrt.inspect(copy).blocks
    assert block.engines[2]["requires"]["compute_capabilities"] == ["8.6", "8.9", "12.0"]


def test_extract(file: Path, tmp_path: Path) -> None:
    portrt_command("extract", file, "--what", "weights", "-o", "w.safetensors", cwd=tmp_path)
    torch.testing.assert_close(
        load_file(tmp_path / "w.safetensors"), dict(model().state_dict().items())
    )
    done = portrt_command("extract", file, "--what", "plan", "-o", "p", cwd=tmp_path, code=2)
    assert "several engines: tensorrt_rtx, onnxruntime" in done.stderr


def test_errors_are_messages(copy: Path) -> None:
    for args, message in (
        (("strip", copy), "strip got nothing to remove"),
        (("strip", copy, "--engine", "onnx"), "has an engine 'onnx'"),
        (("strip", "nothing.pt2", "--source"), "there is no file"),
        (("add-engine", copy, "--engine", "onnx"), "there is no engine 'onnx'"),
        (("verify", "nothing.pt2"), "there is no file"),
    ):
        assert message in portrt_command(*args, cwd=copy.parent, code=2).stderr
