"""compile with the cache: builds once, takes what it built, and gives the same program."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from harness import assert_same
from models import CASES

import portrt
import portrt.compiler.building.engines
from portrt.compiler.backends import registry
from portrt.compiler.backends.onnxruntime.build import OnnxRuntimeBuilder
from portrt.compiler.building import engines
from portrt.errors import BuildError, SettingsError
from portrt.runtime.calls import manifests_of

ROOT = Path(__file__).parents[1]


class Builds:
    """Counts what a backend really builds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.count = 0
        backend: Any = type(registry.builder(name))
        real = backend.build

        def build(own: Any, *args: Any) -> Any:
            self.count += 1
            return real(own, *args)

        monkeypatch.setattr(backend, "build", build)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    return Builds(monkeypatch, "onnxruntime")


def entries(folder: Path, kind: str = "") -> list[Path]:
    return sorted((folder / "v1").glob(f"{kind}*-*/data"))


def test_a_second_compile_captures_and_loads(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny.compiled("onnxruntime", cache_dir=tmp_path)
    assert builds.count == 1

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a warm compile lowers or converts")

    monkeypatch.setattr("portrt.compiler.compile.lower", refuse)
    monkeypatch.setattr(engines, "onnx_from_block", refuse)
    second = tiny.compiled("onnxruntime", cache_dir=tmp_path)
    assert builds.count == 1
    assert manifests_of(second) == manifests_of(first)
    x = torch.randn(7, 8)
    assert_same(second.module()(x), first.module()(x))


def test_another_program_takes_the_engine_without_conversion(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fallback is in the program, and in none of its engines."""
    tiny.compiled("onnxruntime", cache_dir=tmp_path)
    monkeypatch.setattr(engines, "onnx_from_block", lambda *_: pytest.fail("converted"))
    program = tiny.compiled("onnxruntime", cache_dir=tmp_path, fallback="error")
    assert builds.count == 1
    assert len(entries(tmp_path, "program")) == 2
    assert len(entries(tmp_path, "engine")) == 1
    x = torch.randn(2, 8)
    torch.testing.assert_close(program.module()(x), tiny.model()(x).detach())


@pytest.mark.parametrize(
    "change",
    [
        {"dynamic": False},
        {"autocast_max_output_threshold": 5.0},
        {"reuse_cached_engines": False},
        {"cache_dir": "off"},
        {"cache_dir": ""},
    ],
    ids=str,
)
def test_what_is_asked_for_otherwise_is_built(
    builds: Builds, tmp_path: Path, change: dict[str, Any]
) -> None:
    tiny.compiled("onnxruntime", cache_dir=tmp_path)
    tiny.compiled("onnxruntime", **{"cache_dir": tmp_path, **change})
    assert builds.count == 2


def test_an_option_that_changes_no_block_takes_the_engines(builds: Builds, tmp_path: Path) -> None:
    """The model has no such operator, so that its blocks are the same."""
    tiny.compiled("onnxruntime", cache_dir=tmp_path)
    tiny.compiled("onnxruntime", cache_dir=tmp_path, torch_executed_ops=["aten.gelu"])
    assert builds.count == 1


def test_an_option_of_another_backend_takes_the_program(builds: Builds, tmp_path: Path) -> None:
    tiny.compiled("onnxruntime", cache_dir=tmp_path)
    tiny.compiled("onnxruntime", cache_dir=tmp_path, workspace_size=5)
    assert builds.count == 1
    assert len(entries(tmp_path, "program")) == 1


def test_other_weights_are_built(builds: Builds, tmp_path: Path) -> None:
    model = tiny.model()
    options: dict[str, Any] = {"engines": "onnxruntime", "min_block_size": 1, "cache_dir": tmp_path}
    x = torch.randn(3, 8)
    portrt.compile(model, inputs=[x], **options)
    with torch.no_grad():
        model.second.bias[2] += 1
    program = portrt.compile(model, inputs=[x], **options)
    assert builds.count == 2
    torch.testing.assert_close(program(x), model(x).detach())


def test_nothing_is_written_when_it_is_not_asked_for(builds: Builds, tmp_path: Path) -> None:
    for _ in range(2):
        tiny.compiled("onnxruntime", cache_dir=tmp_path, cache_built_engines=False)
    assert builds.count == 2
    assert entries(tmp_path) == []


def test_both_switches_off_touch_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    off = {"cache_built_engines": False, "reuse_cached_engines": False}
    tiny.compiled("onnxruntime", cache_dir=folder, **off)
    assert not folder.exists()


def test_the_environment_names_the_folder(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRT_CACHE_DIR", str(tmp_path))
    tiny.compiled("onnxruntime")
    tiny.compiled("onnxruntime")
    assert builds.count == 1
    assert len(entries(tmp_path)) == 2
    for off in ("", "off", "OFF"):
        monkeypatch.setenv("PORTRT_CACHE_DIR", off)
        tiny.compiled("onnxruntime")
    assert builds.count == 4


def test_the_users_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from portrt.cache.location import cache_folder

    monkeypatch.delenv("PORTRT_CACHE_DIR")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    assert cache_folder() == tmp_path / "portrt"
    assert cache_folder(str(tmp_path)) == tmp_path


def test_the_environment_sets_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRT_CACHE_BYTES", "4000")
    tiny.compiled("onnxruntime", cache_dir=tmp_path)
    assert [path.parent.name.partition("-")[0] for path in entries(tmp_path)] == ["engine"]
    monkeypatch.setenv("PORTRT_CACHE_BYTES", "10 GB")
    with pytest.raises(SettingsError, match="PORTRT_CACHE_BYTES"):
        tiny.compiled("onnxruntime", cache_dir=tmp_path)


def test_a_program_that_lacks_an_engine_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed may succeed another time."""

    def refuse(*_: Any) -> Any:
        raise BuildError("out of memory", "memory", "buy some")

    with monkeypatch.context() as patch:
        patch.setattr(type(registry.builder("tensorrt_rtx")), "build", refuse)
        program = tiny.compiled("tensorrt_rtx", "onnxruntime", cache_dir=tmp_path)
        assert len(json.loads(manifests_of(program)[0])["engines"]) == 1
    assert [path.parent.name.partition("-")[0] for path in entries(tmp_path)] == ["engine"]
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeBuilder, "build", refuse)  # the other one is found
        program = tiny.compiled("onnxruntime", cache_dir=tmp_path)
        assert len(json.loads(manifests_of(program)[0])["engines"]) == 1


@pytest.mark.parametrize("kind", ["program", "engine"])
@pytest.mark.parametrize("cut", [False, True], ids=["flipped", "cut"])
def test_a_tampered_entry_is_built_again(
    builds: Builds, tmp_path: Path, kind: str, cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.compiled("onnxruntime", cache_dir=tmp_path)
    (path,) = entries(tmp_path, kind)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) // 2] if cut else data)
    if kind == "engine":  # else it is not looked at
        (other,) = entries(tmp_path, "program")
        other.write_bytes(b"")
    program = tiny.compiled("onnxruntime", cache_dir=tmp_path)
    assert builds.count == (1 if kind == "program" else 2)
    assert "is removed" in caplog.text
    x = torch.randn(2, 8)
    torch.testing.assert_close(program.module()(x), tiny.model()(x).detach())
    tiny.compiled("onnxruntime", cache_dir=tmp_path)
    assert builds.count == (1 if kind == "program" else 2)


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    program = tiny.compiled("onnxruntime", cache_dir=tmp_path / "file" / "cache")
    x = torch.randn(2, 8)
    torch.testing.assert_close(program.module()(x), tiny.model()(x).detach())


def test_most_models_are_kept_as_programs(tmp_path: Path) -> None:
    """Those with operators of others are not, whose meaning may change under their name."""
    for name in ("mlp_static", "custom_op_between"):
        CASES[name].compile(cache_dir=tmp_path / name)
    assert len(entries(tmp_path / "mlp_static", "program")) == 1
    assert entries(tmp_path / "custom_op_between", "program") == []
    assert len(entries(tmp_path / "custom_op_between", "engine")) >= 1


# A build ends when every process is building, or has found that another one holds the lock.
ONE_OF_MANY = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
import filelock, torch, portrt, tiny
from portrt.compiler.backends import registry

log, there, count = sys.argv[1:]
backend = type(registry.builder("onnxruntime"))
real, lock = backend.build, filelock.FileLock.acquire

def say():
    with open(os.path.join(there, str(os.getpid())), "w"):
        pass

def build(*args):
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\\n")
    say()
    while len(os.listdir(there)) < int(count):
        time.sleep(0.01)
    return real(*args)

def acquire(own, timeout):
    try:
        return lock(own, blocking=False)
    except filelock.Timeout:
        say()
        return lock(own, timeout)

backend.build = build
filelock.FileLock.acquire = acquire
model = tiny.model()
program = tiny.compiled("onnxruntime")
x = torch.arange(16.0).view(2, 8)
torch.testing.assert_close(program.module()(x), model(x).detach())
"""


@pytest.mark.parametrize("count", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_many_processes_on_an_empty_cache_build_once(count: int, tmp_path: Path) -> None:
    log, there = tmp_path / "builds", tmp_path / "there"
    there.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PORTRT_CACHE_DIR": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_MANY, str(log), str(there), str(count)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    try:
        errors = [process.communicate(timeout=900)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, errors
    assert len(log.read_text().splitlines()) == 1


def test_the_log_says_what_was_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny.compiled("onnxruntime", cache_dir=tmp_path)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="portrt"):
        tiny.compiled("onnxruntime", cache_dir=tmp_path)
    assert "took the compiled program from the cache" in caplog.text
    with caplog.at_level(logging.INFO, logger="portrt"):
        tiny.compiled("onnxruntime", cache_dir=tmp_path, fallback="error")
    assert "took the onnxruntime engine of block_0 from the cache" in caplog.text
