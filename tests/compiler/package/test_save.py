"""portrt.save: the file of torch.export.save, whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import ExportedProgram

import portrt
from portrt.errors import SaveError, SettingsError


def test_file_is_read_by_plain_torch(
    program: ExportedProgram, model: torch.nn.Module, tmp_path: Path
) -> None:
    portrt.save(program, tmp_path / "a.pt2")
    x = torch.randn(7, 8)
    loaded = torch.export.load(tmp_path / "a.pt2").module()
    torch.testing.assert_close(loaded(x), model(x))


def test_module_format_saves_like_its_program(model: torch.nn.Module, tmp_path: Path) -> None:
    module = portrt.compile(model, inputs=[torch.randn(2, 8)], engines="onnxruntime")
    portrt.save(module, tmp_path / "a.pt2")
    x = torch.randn(2, 8)
    torch.testing.assert_close(portrt.load(tmp_path / "a.pt2").module()(x), model(x))


def test_both_runtimes_give_one_file(model: torch.nn.Module, tmp_path: Path) -> None:
    contents = []
    for use_python_runtime in (True, False):
        program = portrt.compile(
            model,
            inputs=[torch.ones(2, 8)],
            engines="onnxruntime",
            use_python_runtime=use_python_runtime,
            output_format="exported_program",
        )
        torch.export.save(program, tmp_path / "a.pt2")
        calls = portrt.inspect(tmp_path / "a.pt2").blocks
        contents.append([engine["sha256"] for block in calls for engine in block.engines])
    assert contents[0] == contents[1]


def test_weights_are_stored_once(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 512)).eval()
    model[1].weight = model[0].weight
    program = portrt.compile(
        model, inputs=[torch.randn(2, 512)], engines="onnxruntime", output_format="exported_program"
    )
    portrt.save(program, tmp_path / "a.pt2")
    once = sum(p.numel() * 4 for p in model.parameters())
    assert once <= (tmp_path / "a.pt2").stat().st_size <= once * 1.05


def test_torchscript_runs_other_batch_sizes(
    program: ExportedProgram, model: torch.nn.Module, tmp_path: Path
) -> None:
    portrt.save(program, tmp_path / "a.ts", output_format="torchscript")
    script = torch.jit.load(tmp_path / "a.ts")
    for batch in (1, 3, 64):
        x = torch.randn(batch, 8)
        torch.testing.assert_close(script(x), model(x))


def test_torchscript_takes_keywords_behind_positions(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": torch.relu(x - 1) * scale}

    x, scale = torch.randn(3, 4), torch.randn(4)
    program = portrt.compile(
        Two().eval(),
        inputs=[x],
        kwarg_inputs={"scale": scale},
        engines="onnxruntime",
        output_format="exported_program",
    )
    portrt.save(program, tmp_path / "a.ts", output_format="torchscript")
    found = torch.jit.load(tmp_path / "a.ts")(x, scale)
    torch.testing.assert_close(found["out"], torch.relu(x - 1) * scale)


def test_torchscript_refuses_sizes_that_tracing_would_freeze(tmp_path: Path) -> None:
    class Sizes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(x.shape[0] * 2, 4).sin() + x.repeat(2, 1)

    program = portrt.compile(
        Sizes().eval(),
        inputs=[torch.randn(3, 4)],
        dynamic_shapes=({0: torch.export.Dim("b", min=1, max=64)},),
        engines="onnxruntime",
        torch_executed_ops={"aten.repeat"},
        output_format="exported_program",
    )
    with pytest.raises(SettingsError, match="TorchScript would freeze it at the example's"):
        portrt.save(program, tmp_path / "a.ts", output_format="torchscript")
    assert not list(tmp_path.iterdir())


def test_unknown_format_and_foreign_objects_are_refused(
    program: ExportedProgram, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="'onnx'"):
        portrt.save(program, tmp_path / "a", output_format="onnx")
    with pytest.raises(SettingsError, match="Linear was given to save"):
        portrt.save(torch.nn.Linear(2, 2), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_folder_that_is_not_there(program: ExportedProgram, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="could not be written") as caught:
        portrt.save(program, tmp_path / "nowhere" / "a.pt2")
    assert isinstance(caught.value, OSError)


def test_path_that_is_a_folder_keeps_it(program: ExportedProgram, tmp_path: Path) -> None:
    (tmp_path / "a.pt2").mkdir()
    with pytest.raises(SaveError):
        portrt.save(program, tmp_path / "a.pt2")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt2"]


@pytest.mark.parametrize("allowed", [0, 100, 5000, 8000])
def test_disk_full_keeps_the_old_file(
    program: ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """The write fails at several places, as on a full disk."""
    target = tmp_path / "a.pt2"
    target.write_bytes(b"what was there")
    _fail_after(monkeypatch, allowed, OSError(28, "No space left on device"))
    with pytest.raises(SaveError, match="No space left on device"):
        portrt.save(program, target)
    assert target.read_bytes() == b"what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt2"]


def test_interrupt_keeps_the_old_file(
    program: ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.pt2"
    target.write_bytes(b"what was there")
    _fail_after(monkeypatch, 5000, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        portrt.save(program, target)
    assert target.read_bytes() == b"what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt2"]


def _fail_after(monkeypatch: pytest.MonkeyPatch, allowed: int, error: BaseException) -> None:
    written = [0]
    real = os.fdopen

    class Failing(io.RawIOBase):
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> int:
            written[0] += len(data)
            if written[0] > allowed:
                raise error
            return int(self.file.write(data))

        def seek(self, offset: int, whence: int = 0) -> int:
            return int(self.file.seek(offset, whence))

        def flush(self) -> None:
            if not self.file.closed:  # it is flushed once more as it ends
                self.file.flush()

        def fileno(self) -> int:
            return int(self.file.fileno())

    @contextlib.contextmanager
    def opened(handle: int, mode: str) -> Any:
        with real(handle, mode) as file:
            yield Failing(file)

    monkeypatch.setattr(os, "fdopen", opened)


def test_really_full_disk(program: ExportedProgram, tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC; the temporary file is put there by a link."""
    code = (
        "import sys, os, portrt\n"
        "from portrt.format import atomic\n"
        "real = atomic._partial_file\n"
        "def full(*args):\n"
        "    handle, name = real(*args)\n"
        "    os.close(handle)\n"
        "    return os.open('/dev/full', os.O_WRONLY), name\n"
        "atomic._partial_file = full\n"
        "try:\n"
        "    portrt.save(portrt.load(sys.argv[1]), sys.argv[2])\n"
        "except portrt.errors.SaveError as err:\n"
        "    print(err)\n"
    )
    portrt.save(program, tmp_path / "a.pt2")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, tmp_path / "a.pt2", tmp_path / "b.pt2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt2"]


def test_killed_save_leaves_the_old_file(saved: Path, tmp_path: Path) -> None:
    """A process that is killed in the middle of the write cannot tidy up, and destroys nothing."""
    code = (
        "import sys, portrt\n"
        "from portrt.format.archive_writer import ArchiveWriter\n"
        "real = ArchiveWriter._put\n"
        "def slow(self, data):\n"
        "    count = real(self, data)\n"
        "    print('writing', flush=True)\n"
        "    sys.stdin.read()\n"  # until it is killed, or the test is
        "    return count\n"
        "ArchiveWriter._put = slow\n"
        "portrt.save(portrt.load(sys.argv[1]), sys.argv[2])\n"
    )
    target = tmp_path / "a.pt2"
    target.write_bytes(saved.read_bytes())
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(saved), str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert target.read_bytes() == saved.read_bytes()


def test_saving_over_the_loaded_file_keeps_the_loaded_program(
    program: ExportedProgram, model: torch.nn.Module, tmp_path: Path
) -> None:
    """The file is mapped while its program lives: replacing it must not pull it away."""
    path = tmp_path / "a.pt2"
    portrt.save(program, path)
    loaded = portrt.load(path)
    portrt.save(loaded, path)
    x = torch.randn(5, 8)
    torch.testing.assert_close(loaded.module()(x), model(x))
    torch.testing.assert_close(portrt.load(path, verify=True).module()(x), model(x))


def test_permissions_follow_the_umask_or_the_old_file(
    program: ExportedProgram, tmp_path: Path
) -> None:
    old_umask = os.umask(0o027)
    try:
        portrt.save(program, tmp_path / "new.pt2")
    finally:
        os.umask(old_umask)
    (tmp_path / "old.pt2").touch(mode=0o600)
    portrt.save(program, tmp_path / "old.pt2")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new.pt2", "old.pt2")]
    assert modes == [0o640, 0o600]


def test_progress_bar_is_shown_on_request(
    program: ExportedProgram, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    portrt.save(program, tmp_path / "a.pt2", progress=True)
    assert "saving a.pt2" in capsys.readouterr().err
    portrt.save(program, tmp_path / "a.pt2")
    assert capsys.readouterr().err == ""
