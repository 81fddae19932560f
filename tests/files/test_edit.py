"""Files that are edited: strip, add_engine, extract. The oracles are torch, zipfile and eager."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from tiny import python

import portrt
from portrt import files
from portrt.compiler.building.check import Sample
from portrt.errors import (
    BuildError,
    CheckError,
    LoadError,
    NoUsableEngineError,
    PackageError,
    PortrtError,
    SaveError,
    SettingsError,
)
from portrt.format import atomic
from portrt.format.archive import Archive, engine_calls
from portrt.runtime.select import FallbackWarning

ENGINES = ("tensorrt_rtx", "onnxruntime")


class Two(torch.nn.Module):
    """Two blocks over one weights image: what is between them stays in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 16)
        self.second = torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.sinh(torch.relu(self.first(x))))) + 1


def two() -> Two:
    torch.manual_seed(0)
    return Two().eval()


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two blocks, two engines each; not to be changed."""
    path = tmp_path_factory.mktemp("two") / "two.pt2"
    program = portrt.compile(
        two(),
        inputs=[torch.randn(3, 8)],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        engines=ENGINES,
        torch_executed_ops={"aten.sinh"},
        min_block_size=1,
        output_format="exported_program",
    )
    torch.export.save(program, path)
    return path


@pytest.fixture
def copy(file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "two.pt2"
    path.write_bytes(file.read_bytes())
    return path


def stored(path: Path) -> list[list[str]]:
    """Backends of each block."""
    return [[e["backend"] for e in block.engines] for block in portrt.inspect(path).blocks]


def contents(path: Path) -> set[str]:
    """Digests of the constants in a file, by Python's zip reader."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = [n for n in archive.namelist() if "/data/constants/tensor_" in n]
        return {hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def assert_good(path: Path, **policy: Any) -> None:
    """Every reader takes the file, and it computes what the model computes."""
    x = torch.randn(5, 8)
    wanted = two()(x)
    calls = engine_calls(Archive(path))
    named = {b.sha256 for c in calls for b in blobs_of(c.manifest)}
    assert named == contents(path)  # nothing is missing, nothing is left over
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        torch.testing.assert_close(portrt.load(path, verify=True, **policy).module()(x), wanted)
    torch.save(x, path.with_suffix(".x"))
    done = python(
        """
        import sys, torch
        x = torch.load(sys.argv[2])
        torch.save(torch.export.load(sys.argv[1]).module()(x), sys.argv[2])
        """,
        str(path),
        str(path.with_suffix(".x")),
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(path.with_suffix(".x")), wanted.detach())
    path.with_suffix(".x").unlink()


def blobs_of(manifest: Any) -> list[Any]:
    held = [manifest.weights, manifest.source, *(engine.data for engine in manifest.engines)]
    return [blob for blob in held if blob is not None]


def test_the_file_has_two_blocks(file: Path) -> None:
    assert stored(file) == [list(ENGINES)] * 2
    assert_good(file)


@pytest.mark.parametrize(
    ("options", "left", "has_source"),
    [
        ({"engine": "tensorrt_rtx"}, ["onnxruntime"], True),
        ({"engine": ["tensorrt_rtx", "onnxruntime"]}, [], True),
        ({"keep": "tensorrt_rtx"}, ["tensorrt_rtx"], True),
        ({"source": True}, list(ENGINES), False),
        ({"keep": "onnxruntime", "source": True}, ["onnxruntime"], False),
    ],
)
def test_strip(
    file: Path, tmp_path: Path, options: dict[str, Any], left: list[str], has_source: bool
) -> None:
    before, path = contents(file), tmp_path / "out.pt2"
    files.strip(file, **options, output=path)
    assert stored(path) == [left] * 2
    assert [b.source_bytes is not None for b in portrt.inspect(path).blocks] == [has_source] * 2
    assert contents(path) < before
    assert path.stat().st_size < file.stat().st_size
    assert_good(path)


def test_strip_in_place_changes_no_other_record(copy: Path, file: Path) -> None:
    copy.chmod(0o640)
    files.strip(copy, engine="tensorrt_rtx")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640
    assert [path.name for path in copy.parent.iterdir()] == ["two.pt2"]
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(copy) as after:
        kept = set(after.namelist())
        changed = {name for name in kept if after.read(name) != before.read(name)}
    assert {name.partition("/")[2] for name in changed} == {
        "models/model.json",
        "data/constants/model_constants_config.json",
        ".data/serialization_id",
    }


def test_weights_that_nothing_takes_go_too(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.pt2"
    files.strip(file, keep="tensorrt_rtx", source=True, output=path)
    assert all(call.manifest.weights is None for call in engine_calls(Archive(path)))
    assert len(contents(path)) == 2
    with pytest.raises(NoUsableEngineError, match="the file has no source"):
        torch.export.load(path).module()(torch.randn(2, 8))


def test_a_stripped_source_is_no_fallback(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.pt2"
    files.strip(file, source=True, output=path)
    assert_good(path)
    program = portrt.load(path, engines="tensorrt_rtx", fallback="eager")
    with pytest.raises(NoUsableEngineError, match="and the file has no source"):
        program.module()(torch.randn(2, 8))


def test_strip_leaves_no_block_that_nothing_can_run(copy: Path, file: Path) -> None:
    for options in ({"engine": ENGINES, "source": True},):
        with pytest.raises(SettingsError, match="neither an engine nor its source"):
            files.strip(copy, **options)
        assert copy.read_bytes() == file.read_bytes()
    files.strip(copy, engine=ENGINES, source=True, force=True)
    assert stored(copy) == [[], []]
    with pytest.raises(PortrtError):
        torch.export.load(copy).module()(torch.randn(2, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "strip got nothing to remove"),
        ({"engine": ()}, "strip got nothing to remove"),
        ({"engine": "onnxruntime", "keep": "onnxruntime"}, "got both engine and keep"),
        ({"engine": "onyxruntime"}, "has an engine 'onyxruntime'"),
        ({"keep": "onyxruntime"}, "has an engine 'onyxruntime'"),
    ],
)
def test_strip_refuses(copy: Path, file: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        files.strip(copy, **options)
    assert copy.read_bytes() == file.read_bytes()


def test_other_files_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pt2"
    torch.export.save(torch.export.export(two(), (torch.randn(2, 8),)), plain)
    (tmp_path / "text.pt2").write_text("no zip file")
    for call in (
        lambda path: files.strip(path, source=True),
        lambda path: files.add_engine(path, "onnxruntime"),
        lambda path: files.extract(path, "weights", tmp_path / "out"),
    ):
        with pytest.raises(PackageError, match="calls no engine"):
            call(plain)
        with pytest.raises(LoadError, match="is not a zip file"):
            call(tmp_path / "text.pt2")
        with pytest.raises(LoadError, match="there is no file"):
            call(tmp_path / "nothing.pt2")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_add_engine(file: Path, tmp_path: Path, engine: str, first: bool) -> None:
    other = ENGINES[1 - ENGINES.index(engine)]
    path = tmp_path / "one.pt2"
    files.strip(file, engine=engine, output=path)
    files.add_engine(path, engine, first=first)
    assert stored(path) == [[engine, other] if first else [other, engine]] * 2
    assert_good(path)
    assert_good(path, engines=())
    found = next(e for e in portrt.inspect(path).blocks[0].engines if e["backend"] == engine)
    before = next(e for e in portrt.inspect(file).blocks[0].engines if e["backend"] == engine)
    assert found["requires"] == before["requires"]
    assert found["check"].keys() == ({"skipped"} if engine == ENGINES[0] else {"device", "outputs"})


def test_add_the_same_backend_for_another_target(copy: Path) -> None:
    files.add_engine(copy, "tensorrt_rtx", target_compute_capabilities=["sm_89"])
    files.add_engine(copy, {"backend": "tensorrt_rtx", "target_compute_capabilities": "12.0"})
    targets = [
        engine["requires"].get("compute_capabilities")
        for engine in portrt.inspect(copy).blocks[1].engines
    ]
    assert targets[2:] == [["8.9"], ["12.0"]]
    assert_good(copy)


def test_add_engine_to_blocks_without_weights(tmp_path: Path) -> None:
    program = portrt.compile(
        torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh()),
        inputs=[torch.randn(2, 3)],
        engines="onnxruntime",
        output_format="exported_program",
    )
    path = tmp_path / "a.pt2"
    portrt.save(program, path)
    files.strip(path, engine="onnxruntime")
    files.add_engine(path, "onnxruntime")
    x = torch.randn(2, 3)
    found = portrt.load(path, verify=True, fallback="error").module()(x)
    torch.testing.assert_close(found, torch.tanh(torch.relu(x)))


def test_a_failing_build_leaves_the_file(
    copy: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portrt.compiler.backends.onnxruntime.build import OnnxRuntimeBuilder

    real = OnnxRuntimeBuilder.build

    def second_fails(self: Any, material: Any, settings: Any) -> Any:
        if material.block.name == "block_1":
            raise BuildError("no kernel", "a kernel", "wait")
        return real(self, material, settings)

    monkeypatch.setattr(OnnxRuntimeBuilder, "build", second_fails)
    with pytest.raises(BuildError, match="no kernel"):
        files.add_engine(copy, "onnxruntime")
    assert copy.read_bytes() == file.read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == ["two.pt2"]


def test_an_engine_with_other_numbers_is_not_added(
    copy: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import portrt.files.insert_engine as module

    def wrong(inputs: Any, outputs: Any) -> Sample:
        return Sample(inputs, tuple(output + 1 for output in outputs))

    monkeypatch.setattr(module, "Sample", wrong)
    with pytest.raises(CheckError, match="differs from PyTorch in output"):
        files.add_engine(copy, "onnxruntime")
    assert copy.read_bytes() == file.read_bytes()
    files.add_engine(copy, "onnxruntime", check="off")


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("onnxruntme", {}, "there is no engine 'onnxruntme'"),
        (["onnxruntime"], {}, "one backend"),
        ("onnxruntime", {"engines": "onnxruntime"}, "no option 'engines'"),
        ("onnxruntime", {"optimisation_level": 3}, "'optimization_level'"),
        ("tensorrt_rtx", {"optimization_level": 9}, "optimization_level is 9"),
        (
            "onnxruntime",
            {"optimization_level": 3},
            "no option 'optimization_level'",
        ),
        ("onnxruntime", {"target_compute_capabilities": "8.6"}, "no option 'target_compute"),
    ],
)
def test_add_engine_refuses(
    copy: Path, file: Path, engine: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PortrtError, match=message):
        files.add_engine(copy, engine, **options)
    assert copy.read_bytes() == file.read_bytes()


def test_add_engine_wants_sources(copy: Path) -> None:
    files.strip(copy, source=True)
    with pytest.raises(PackageError, match="no source of block_0, block_1: it was stripped"):
        files.add_engine(copy, "onnxruntime")


@pytest.mark.parametrize("which", ["weights", "source"])
def test_nothing_is_built_from_damaged_parts(copy: Path, which: str) -> None:
    call = engine_calls(Archive(copy))[0]
    record = call.blobs[getattr(call.manifest, which).index]
    content = bytearray(copy.read_bytes())
    content[record.offset + record.size - 3] ^= 1
    copy.write_bytes(content)
    with pytest.raises(PackageError, match="is damaged: its SHA-256"):
        files.add_engine(copy, "onnxruntime", check="off")
    assert copy.read_bytes() == content


def test_extract_a_plan(file: Path, tmp_path: Path) -> None:
    call = engine_calls(Archive(file))[1]
    for engine in call.manifest.engines:
        files.extract(file, "plan", tmp_path / "p", engine=engine.backend, block="block_1")
        data = (tmp_path / "p").read_bytes()
        assert hashlib.sha256(data).hexdigest() == engine.data.sha256
    assert onnx.load_from_string(data).opset_import[0].version == 23


@pytest.mark.parametrize("has_engine", [True, False])
def test_extract_onnx_that_onnxruntime_opens(file: Path, tmp_path: Path, has_engine: bool) -> None:
    path, model = tmp_path / "a.pt2", tmp_path / "first.onnx"
    files.strip(file, engine=ENGINES if not has_engine else "tensorrt_rtx", output=path)
    files.extract(path, "onnx", model, block="block_0")
    path.unlink()
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    x = torch.randn(5, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), torch.relu(two().first(x)).detach())


def test_extract_source_and_weights(file: Path, tmp_path: Path) -> None:
    files.extract(file, "weights", tmp_path / "w.safetensors")
    weights = load_file(tmp_path / "w.safetensors")
    torch.testing.assert_close(weights, dict(two().state_dict()))
    files.extract(file, "source", tmp_path / "s.pt2", block="block_1")
    code = """
        import sys, torch
        from safetensors.torch import load_file
        w = load_file(sys.argv[2])
        x = torch.arange(32.0).view(2, 16) / 32 - 0.5
        source = torch.export.load(sys.argv[1]).module()
        (found,) = source(x, w["second.weight"], w["second.bias"])
        wanted = torch.relu(torch.nn.functional.linear(x, w["second.weight"], w["second.bias"])) + 1
        torch.testing.assert_close(found, wanted)
    """
    done = python(code, str(tmp_path / "s.pt2"), str(tmp_path / "w.safetensors"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("what", "options", "error", "message"),
    [
        ("engine", {}, SettingsError, "what is 'engine'"),
        ("onnx", {}, SettingsError, "the file has 2 blocks"),
        ("plan", {"block": "block_0"}, SettingsError, "several engines: tensorrt_rtx, onnxruntime"),
        ("plan", {"block": "block_0", "engine": "trt"}, PackageError, "no engine trt of block_0"),
        ("source", {"block": "block_9"}, PackageError, "no block 'block_9'"),
    ],
)
def test_extract_refuses(
    file: Path,
    tmp_path: Path,
    what: str,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        files.extract(file, what, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_extract_of_what_was_stripped(file: Path, tmp_path: Path) -> None:
    files.strip(file, keep="tensorrt_rtx", source=True, output=tmp_path / "a.pt2")
    for what, message in (
        ("source", "it was stripped"),
        ("weights", "no weights"),
        ("onnx", "neither an onnxruntime engine nor the source"),
    ):
        with pytest.raises(PackageError, match=message):
            files.extract(tmp_path / "a.pt2", what, tmp_path / "out", block="block_0")
    assert not (tmp_path / "out").exists()


def test_extract_checks_digests(copy: Path, tmp_path: Path) -> None:
    call = engine_calls(Archive(copy))[0]
    content = bytearray(copy.read_bytes())
    for record in call.blobs:
        content[record.offset + record.size - 3] ^= 1
    copy.write_bytes(content)
    for what in ("weights", "source", "plan", "onnx"):
        options = {"engine": "onnxruntime"} if what == "plan" else {}
        with pytest.raises(PackageError, match="is damaged"):
            files.extract(copy, what, tmp_path / "out", block="block_0", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["two.pt2"]


EDITS: dict[str, Callable[[Path], None]] = {
    "strip": lambda path: files.strip(path, engine="tensorrt_rtx"),
    "add": lambda path: files.add_engine(path, "onnxruntime"),
    "weights": lambda path: files.extract(path, "weights", path.with_suffix(".safetensors")),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("name", EDITS)
def test_full_disk(copy: Path, file: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write is answered with ENOSPC by the kernel, what it would copy itself included."""
    real = atomic._partial_file

    def full(target: Path, mode: int) -> tuple[int, Path]:
        handle, made = real(target, mode)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), made

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_partial_file", full)
        with pytest.raises(SaveError, match="No space left on device"):
            EDITS[name](copy)
    assert copy.read_bytes() == file.read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == ["two.pt2"]


def test_folder_that_is_not_there(file: Path, tmp_path: Path) -> None:
    for call in (
        lambda path: files.strip(file, source=True, output=path),
        lambda path: files.extract(file, "weights", path),
    ):
        with pytest.raises(SaveError, match="could not be written"):
            call(tmp_path / "nowhere" / "a.pt2")


KILLER = """
import itertools, os, pathlib, shutil, signal, sys
import torch, portrt
from portrt import files
from portrt.compiler.plan import Engine
import portrt.files.insert_engine as adding

name, original, room = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
target = room / "a.pt2"
made = Engine(backend="onnxruntime", data=b"engine" * 5000, requires={"device": ["cpu"]})
adding._build = lambda *_, **__: made  # the writing is what is tested

def edit():
    if name == "add":
        files.add_engine(target, "onnxruntime", check="off")
    else:
        files.strip(target, engine="tensorrt_rtx")

def in_child(kill_at):
    shutil.copyfile(original, target)
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        hook(kill_at)
        edit()
    finally:
        os._exit(0)

def hook(kill_at):
    count = itertools.count(1)

    def step(half=lambda: None):
        if next(count) == kill_at:
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def around(holder, attribute):
        real = getattr(holder, attribute)
        def stepping(*args, **kwargs):
            step()
            result = real(*args, **kwargs)
            step()
            return result
        setattr(holder, attribute, stepping)

    for holder, attribute in (
        (os, "fsync"), (pathlib.Path, "chmod"), (pathlib.Path, "replace"), (os, "copy_file_range"),
    ):
        around(holder, attribute)
    opened = os.fdopen

    class File:
        def __init__(self, raw):
            self.raw = raw
        def __enter__(self):
            return self
        def __exit__(self, *_):
            self.raw.close()
        def write(self, data):
            step(lambda: self.raw.write(memoryview(data)[: len(data) // 2]))
            return self.raw.write(data)
        def flush(self):
            pass
        def fileno(self):
            return self.raw.fileno()

    os.fdopen = lambda handle, mode: File(opened(handle, mode, buffering=0))

assert in_child(0) == 0
new, old = target.read_bytes(), original.read_bytes()
assert new != old
found = []
for kill_at in itertools.count(1):
    status = in_child(kill_at)
    now = target.read_bytes()
    assert now in (old, new), (kill_at, "a third thing")
    found.append("new" if now == new else "old")
    left = [p.name for p in room.iterdir() if p.name != "a.pt2"]
    assert all(n.startswith(".a.pt2.") and n.endswith(".part") for n in left), left
    for path in room.iterdir():
        path.unlink()
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(len(found), "".join(state[0] for state in found))
"""


@pytest.mark.skipif(
    not hasattr(os, "copy_file_range"), reason="there is no os.copy_file_range here"
)
@pytest.mark.parametrize("name", ["strip", "add"])
def test_killed_at_every_write_step(file: Path, tmp_path: Path, name: str) -> None:
    """SIGKILL before, in the middle of and after each write: the old file or the new one."""
    done = python(KILLER, name, str(file), str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    count, states = done.stdout.split()
    assert int(count) > 60
    assert states.strip("o").strip("n") == ""  # old until it is replaced, new from then on
    assert states.startswith("ooo")
    assert states.endswith("nn")
