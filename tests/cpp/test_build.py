"""`portrt cpp build` and `portrt cpp flags`."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from portrt.cli import cli
from portrt.cpp import build as building
from portrt.cpp.build import Built, build
from portrt.errors import BuildError, SettingsError


def test_a_finished_library_is_not_built_again(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_compile", None)  # a call would raise
    done = CliRunner().invoke(cli, ["cpp", "build", "--prefix", str(built.prefix)])
    assert done.exit_code == 0, done.output
    assert Path(done.output.strip()) == built.library
    assert (built.prefix / "include" / "portrt" / "runtime.h").is_file()


def test_flags_name_folders_that_are_there(built: Built) -> None:
    done = CliRunner().invoke(cli, ["cpp", "flags", "--prefix", str(built.prefix)])
    assert done.exit_code == 0, done.output
    flags = shlex.split(done.output)
    folders = [flag[flag.index("/") :] for flag in flags if "/" in flag]
    assert len(folders) == 5
    assert all(Path(folder).is_dir() for folder in folders)


def test_flags_without_torch(built: Built) -> None:
    options = ["cpp", "flags", "--without-torch", "--prefix", str(built.prefix)]
    done = CliRunner().invoke(cli, options)
    assert done.exit_code == 0, done.output
    assert "-ltorch" not in done.output
    assert (built.prefix / "include" / "portrt" / "program.h").is_file()
    assert built.without_torch.is_file()


def test_other_sources_are_another_library(
    built: Built, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiled = []

    def compile_nothing(torch: object, command: object, workdir: Path) -> None:
        compiled.append(workdir)
        (workdir / building.CPP_LIBRARY).write_bytes(b"")
        (workdir / building.CPP_WITHOUT_TORCH).write_bytes(b"")

    monkeypatch.setattr(building, "_compile", compile_nothing)
    for digest, count in (("a", 1), ("a", 1), ("b", 2)):
        monkeypatch.setattr("portrt.cpp.sources.digest", lambda digest=digest: digest)
        made = build(tmp_path)
        assert len(compiled) == count
    made.library.unlink()
    build(tmp_path)
    assert len(compiled) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["include", "lib"]


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(BuildError, match="there is no C\\+\\+ compiler no-such-compiler"):
        build(tmp_path)
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BuildError, match="the C\\+\\+ compiler failed: false --version"):
        build(tmp_path)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="there is no C\\+\\+ compiler\n"):
        build(tmp_path)


def test_without_a_folder(built: Built) -> None:
    with pytest.raises(SettingsError, match="the cache is off"):
        build()
