"""The command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import portrt
from portrt.cli import COMMANDS, main
from portrt.targets import backends

MODELS = """
import torch

class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        torch.nn.init.constant_(self.linear.weight, 0.5)
        torch.nn.init.constant_(self.linear.bias, 1.0)

    def forward(self, x, shift):
        return torch.relu(self.linear(x)) + shift, (x * 2).sum()

def make():
    return Scale().eval()

def with_inputs():
    return make(), (torch.ones(2, 4), torch.ones(3))

def exported():
    return torch.export.export(*with_inputs())

def broken():
    raise RuntimeError("no weights here")
"""


@pytest.fixture(scope="module", autouse=True)
def wide_terminal() -> Iterator[None]:
    os.environ["COLUMNS"] = "200"
    yield
    del os.environ["COLUMNS"]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, and one of them compiled."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "my_models.py").write_text(MODELS)
    portrt_command(
        *("compile", "my_models:make", "-o", "model.pt2", "--engine", "onnxruntime"),
        *("--input", "1..2..8x4", "--input", "shift=3:float32", "--min-block-size", "1"),
        cwd=folder,
    )
    return folder


@dataclass
class Done:
    stdout: str
    stderr: str


def portrt_command(*args: str | Path, cwd: Path, code: int = 0) -> Done:
    """Run the command line in this process, as `portrt ARGS` in `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    before, argv, path = Path.cwd(), sys.argv, list(sys.path)
    os.chdir(cwd)
    sys.argv = ["portrt", *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        assert (stop.code or 0) == code, out.getvalue() + err.getvalue()
    else:
        assert code == 0
    finally:
        os.chdir(before)
        sys.argv, sys.path[:] = argv, path
    return Done(out.getvalue(), err.getvalue())


def expected(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return torch.relu(x.sum(1, keepdim=True) * 0.5 + 1).expand(-1, 3) + shift


def test_compile_from_a_factory_with_a_range(room: Path) -> None:
    x, shift = torch.randn(7, 4), torch.randn(3)
    out, total = torch.export.load(room / "model.pt2").module()(x, shift)
    torch.testing.assert_close(out, expected(x, shift))
    torch.testing.assert_close(total, (x * 2).sum())


@pytest.mark.parametrize("factory", ["with_inputs", "exported"])
def test_compile_from_a_factory_with_inputs(room: Path, tmp_path: Path, factory: str) -> None:
    target = tmp_path / "a.pt2"
    portrt_command(
        "compile", f"my_models:{factory}", "-o", target, "--engine", "onnxruntime", cwd=room
    )
    x, shift = torch.randn(2, 4), torch.randn(3)
    torch.testing.assert_close(portrt.load(target).module()(x, shift)[0], expected(x, shift))


def test_compile_from_a_file(room: Path, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()).eval()
    x = torch.randn(2, 4)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "in.pt2")
    portrt_command("compile", "in.pt2", "-o", "out.pt2", "--engine", "onnxruntime", cwd=tmp_path)
    torch.testing.assert_close(portrt.load(tmp_path / "out.pt2").module()(x), model(x))
    assert portrt.inspect(tmp_path / "out.pt2").blocks


def test_dryrun_writes_nothing(room: Path, tmp_path: Path) -> None:
    done = portrt_command(
        *("compile", "my_models:with_inputs", "-o", tmp_path / "a.pt2", "--dryrun"),
        *("--engine", "onnxruntime", "--torch-executed-op", "aten.relu"),
        cwd=room,
    )
    assert "torch_executed_ops" in done.stdout
    assert not (tmp_path / "a.pt2").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.pt2", "neither a file nor"),
        ("my_models:nothing", "has no attribute 'nothing'"),
        ("no_such_module:make", "No module named"),
        ("my_models:broken", "no weights here"),
        ("my_models:make", "no inputs were given"),
    ],
)
def test_compile_says_what_is_wrong_with_the_source(room: Path, source: str, message: str) -> None:
    done = portrt_command("compile", source, "-o", "x.pt2", cwd=room, code=2)
    assert message in done.stderr
    assert "Do:" in done.stderr
    assert not (room / "x.pt2").exists()


@pytest.mark.parametrize("spec", ["2xfoo", "2x4:floaty", "1..2x4", "a=b=2"])
def test_compile_says_how_an_input_is_written(room: Path, spec: str) -> None:
    done = portrt_command(
        "compile", "my_models:make", "-o", "x.pt2", "--input", spec, cwd=room, code=2
    )
    assert "cannot be read" in done.stderr


def test_run_on_npy_npz_and_safetensors(room: Path, tmp_path: Path) -> None:
    x, shift = torch.randn(5, 4), torch.randn(3)
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "shift.npy", shift.numpy())
    np.savez(tmp_path / "in.npz", x=x.numpy(), shift=shift.numpy())
    save_file({"x": x, "shift": shift}, tmp_path / "in.safetensors")
    for inputs in (["x.npy", "shift.npy"], ["in.npz"], ["in.safetensors"]):
        paths = [tmp_path / name for name in inputs]
        done = portrt_command(
            "run", room / "model.pt2", *paths, "-o", tmp_path / "out.safetensors", cwd=tmp_path
        )
        assert "block_0" in done.stdout
        assert "runs as onnxruntime" in done.stdout
        found = load_file(tmp_path / "out.safetensors")
        torch.testing.assert_close(found["output_0"], expected(x, shift))


def test_run_on_random_inputs_is_reproducible(room: Path, tmp_path: Path) -> None:
    found = []
    for name in ("a.npz", "b.npz"):
        portrt_command(
            "run",
            room / "model.pt2",
            "--random",
            "-o",
            tmp_path / name,
            "--repeat",
            "2",
            cwd=tmp_path,
        )
        with np.load(tmp_path / name) as arrays:
            found.append(arrays["output_0"])
    np.testing.assert_array_equal(*found)


def test_run_follows_the_policy(room: Path, tmp_path: Path) -> None:
    done = portrt_command(
        *("run", room / "model.pt2", "--random", "--engine", "tensorrt_rtx", "--fallback", "error"),
        cwd=tmp_path,
        code=2,
    )
    assert "onnxruntime: no: the policy allows tensorrt_rtx" in done.stderr


def test_run_says_which_inputs_it_wants(room: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    np.savez(tmp_path / "in.npz", y=np.zeros(3))
    model = room / "model.pt2"
    for args, message in (
        ((), "no inputs were given"),
        ((tmp_path / "x.npy",), "2: x, shift"),
        ((tmp_path / "in.npz",), "x, shift"),
        ((tmp_path / "x.npy", "--random"), "together with --random"),
        ((room / "my_models.py",), ".npy files, or one .npz"),
    ):
        assert message in portrt_command("run", model, *args, cwd=tmp_path, code=2).stderr


def test_inspect_as_table_and_json(room: Path) -> None:
    table = portrt_command("inspect", "model.pt2", cwd=room).stdout
    assert "block_0" in table
    assert "onnxruntime" in table
    assert "opset" in table
    found = json.loads(portrt_command("inspect", "model.pt2", "--json", cwd=room).stdout)
    known = json.loads(json.dumps(portrt.inspect(room / "model.pt2").to_json()))
    assert found["blocks"] == known["blocks"]


def test_inspect_of_what_is_no_program(room: Path) -> None:
    assert "is not a zip file" in portrt_command("inspect", "my_models.py", cwd=room, code=2).stderr
    assert "there is no file" in portrt_command("inspect", "nothing.pt2", cwd=room, code=2).stderr


def test_doctor_as_table_and_json(tmp_path: Path) -> None:
    table = portrt_command("doctor", cwd=tmp_path).stdout
    found = json.loads(portrt_command("doctor", "--json", cwd=tmp_path).stdout)
    names = [item["name"] for item in found["backends"]]
    assert names == list(backends.names())
    for item in found["backends"]:
        assert item["name"] in table
        for verdict in (item["builds"], *item["runs"].values()):
            assert verdict["ok"] or (verdict["reason"] and verdict["remedy"])
    assert found["facts"]["torch"] == torch.__version__


def test_doctor_of_a_machine_without_onnxruntime(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not for this Python')")
    done = subprocess.run(
        [sys.executable, "-c", "from portrt.cli import main; main()", "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (status,) = (b for b in json.loads(done.stdout)["backends"] if b["name"] == "onnxruntime")
    assert not status["builds"]["ok"]
    assert "not for this Python" in status["builds"]["reason"]
    assert "pip install onnxruntime" in status["builds"]["remedy"]


def test_unknown_command_lists_the_known_ones(tmp_path: Path) -> None:
    known = ", ".join(sorted(COMMANDS))
    assert known in portrt_command("inspct", cwd=tmp_path, code=2).stderr


def test_installed_command_runs(tmp_path: Path) -> None:
    """The entry point, in a process of its own: an error is one message and exit code 2."""
    command = Path(sys.executable).with_name("portrt")
    done = subprocess.run(
        [command, "inspect", "nothing.pt2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("portrt: there is no file 'nothing.pt2'\n  Expected:")


def test_help_of_every_command(tmp_path: Path) -> None:
    for command in COMMANDS:
        assert "Usage:" in portrt_command(command, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("tpu", "cpu, cuda or cuda:N"),
        ("meta", "cpu, cuda or cuda:N"),
        ("cpu:3", "leave the number"),
        *([] if torch.cuda.is_available() else [("cuda:1", "Expected: cpu")]),
    ],
)
@pytest.mark.parametrize("command", ["run --random", "verify", "bench", "tune", "profile"])
def test_a_device_that_is_not_here(room: Path, command: str, device: str, words: str) -> None:
    name, *options = command.split()
    found = portrt_command(name, "model.pt2", *options, "--device", device, cwd=room, code=2)
    assert f"the device is '{device}'" in found.stderr
    assert words in found.stderr


@pytest.mark.parametrize("command", ["check", "inspect", "run --random", "verify", "bench"])
@pytest.mark.parametrize(
    ("ending", "kind"), [(".onnx", "an ONNX model"), (".plan", "a TensorRT plan")]
)
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, command: str, ending: str, kind: str
) -> None:
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"\x08\x0a\x12\x07pytorch" * 9)
    name, *options = command.split()
    found = portrt_command(name, path, *options, cwd=tmp_path, code=2)
    assert f"is {kind}" in found.stderr


def test_the_output_is_checked_before_the_work(room: Path, tmp_path: Path) -> None:
    cases = [(tmp_path / "no" / "a.pt2", "there is no folder"), (tmp_path, "is a folder")]
    for path, fact in cases:  # the factory would fail
        found = portrt_command("compile", "my_models:broken", "-o", path, cwd=room, code=2)
        assert fact in found.stderr


def test_an_unexpected_error_is_one_message(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyError("what")

    monkeypatch.setattr("portrt.files.verify_engines.verify", fails)
    found = portrt_command("verify", "model.pt2", cwd=room, code=2)
    assert found.stderr.startswith("portrt: KeyError: 'what'")
    assert "Traceback" not in found.stderr
