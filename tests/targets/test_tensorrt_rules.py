"""Which TensorRT may run an engine, by versions alone. The expected answers are NVIDIA's rules, as
portrt/package/tensorrt_rule.py cites them, and what was seen on an H100."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from portrt.errors import SettingsError
from portrt.files import Target
from portrt.targets import lean_library, this_machine
from portrt.targets.lean_library import ENV_LEAN, find_lean_library
from portrt.targets.machine import Machine
from portrt.targets.requirements import check_requirements
from portrt.targets.tensorrt_rules import runtime_for
from portrt.verdict import Verdict

EXACT = {"device": ["cuda"], "tensorrt": "10.3.0.26", "version_compatible": False}
INSIDE = {**EXACT, "version_compatible": True, "lean_runtime": "inside"}
OUTSIDE = {**INSIDE, "lean_runtime": "outside"}
OLD = {"tensorrt": "8.6.0.12"}
NEW = {"tensorrt": "11.4.1.9"}


def facts(library: bool | None = None, **versions: str) -> Machine:
    """A machine with these libraries; `library`: whether a lean library file of that release."""

    def find(built: str) -> str | Verdict:
        return "lib.so" if library else Verdict.no("library_missing", f"no lean library of {built}")

    names = {"full": "tensorrt", "lean": "tensorrt_lean", "dispatch": "tensorrt_dispatch"}
    return Machine(
        compute_capability="9.0",
        versions={names[name]: version for name, version in versions.items()},
        lean_library=None if library is None else find,
    )


@pytest.mark.parametrize(
    ("requires", "there", "runtime"),
    [
        (EXACT, facts(full="10.3.0.26"), "tensorrt"),
        (EXACT, facts(full="10.3.0"), "tensorrt"),
        (EXACT, facts(full="10.3.0.27"), None),
        (EXACT, facts(full="10.3.1"), None),
        (EXACT, facts(full="10.4.0"), None),
        (EXACT, facts(lean="10.3.0.26"), None),
        (EXACT, facts(dispatch="10.3.0.26", lean="10.3.0.26"), None),
        (INSIDE, facts(full="10.3.0.26"), "tensorrt"),
        (INSIDE, facts(full="10.16"), "tensorrt"),
        (INSIDE, facts(full="10"), "tensorrt"),
        (INSIDE, facts(full="10.2.0"), None),
        (INSIDE, facts(full="11.0"), "tensorrt"),
        (INSIDE, facts(full="12.0"), None),
        (INSIDE, facts(full="8.6.1"), None),
        (INSIDE, facts(full="10.2", dispatch="10.16"), "tensorrt_dispatch"),
        (INSIDE, facts(dispatch="10.16"), "tensorrt_dispatch"),
        (INSIDE | OLD, facts(full="8.6.1"), "tensorrt"),
        (INSIDE | OLD, facts(full="9.2"), None),
        (INSIDE | OLD, facts(dispatch="10.16.1.11"), "tensorrt_dispatch"),
        (INSIDE | OLD, facts(dispatch="11.4"), None),
        (INSIDE | NEW, facts(full="11.5"), "tensorrt"),
        (INSIDE | NEW, facts(full="12.0"), None),
        (OUTSIDE, facts(True, dispatch="10.16"), "tensorrt_dispatch"),
        (OUTSIDE, facts(True, full="11.0"), "tensorrt"),
        (OUTSIDE, facts(False, dispatch="10.16"), None),
        (OUTSIDE, facts(None, dispatch="10.16"), "tensorrt_dispatch"),
        (OUTSIDE, facts(False, full="10.3.0.26"), "tensorrt"),
        (OUTSIDE, facts(True, dispatch="12.0"), None),
        (OUTSIDE | OLD, facts(True, dispatch="10.16.1.11"), "tensorrt_dispatch"),
        (OUTSIDE | OLD, facts(True, dispatch="11.4"), None),
        (EXACT, facts(full="", dispatch=""), None),
        (EXACT, facts(), "tensorrt"),
        (EXACT, facts(full="unknown"), "tensorrt"),
        ({"device": ["cuda"]}, facts(full="10.3.0"), None),
        ({"device": ["cuda"], "tensorrt": "new"}, facts(full="10.3.0"), None),
    ],
)
def test_the_rule(requires: dict[str, Any], there: Machine, runtime: str | None) -> None:
    found = runtime_for(requires, there)
    verdict = check_requirements("tensorrt", requires, there, "cuda")
    assert verdict.ok == (runtime is not None)
    if runtime is not None:
        assert found == runtime
        return
    assert isinstance(found, Verdict)
    assert found == verdict
    assert not found
    if "lean library" not in found.reason:  # the fake's own words
        assert found.remedy
        numbers = [*there.versions.values()]
        if requires.get("tensorrt", "new") != "new" and any(numbers):
            numbers.append(requires["tensorrt"])
            assert all(number in found.reason for number in numbers)


def test_the_lean_runtime_alone() -> None:
    """It is its own lean library, for engines of its own release."""
    assert runtime_for(OUTSIDE, facts(lean="10.3.0.26")) == "tensorrt_lean"
    assert runtime_for(INSIDE, facts(lean="10.16.1")) == "tensorrt_lean"
    refused = runtime_for(OUTSIDE, facts(lean="10.16.1"))
    assert isinstance(refused, Verdict)
    assert "runs such engines of its own release only" in refused.reason
    assert "10.3.0.26" in refused.reason
    assert "10.16.1" in refused.reason
    both = facts(True, lean="10.16.1", dispatch="10.16.1")
    assert runtime_for(OUTSIDE, both) == "tensorrt_dispatch"


@pytest.mark.parametrize(
    ("requires", "there", "reason"),
    [
        ({"cuda": "12.1"}, {"cuda": "12.0"}, ""),
        ({"cuda": "12.1"}, {"cuda": "13.0"}, ""),
        ({"cuda": "12.1"}, {}, ""),
        ({}, {"cuda": "11.0"}, ""),
        (
            {"cuda": "12.1"},
            {"cuda": "11.8"},
            "driver is too old: it supports CUDA 11.8, the engine",
        ),
        ({"compute_capability_min": "8.0"}, {"compute_capability": "8.0"}, ""),
        ({"compute_capability_min": "8.0"}, {"compute_capability": "12.0"}, ""),
        (
            *({"compute_capability_min": "8.0"}, {"compute_capability": "7.5"}),
            "compute capability 8.0 or newer, the GPU has 7.5",
        ),
        (
            *({"compute_capabilities": ["9.0"]}, {"compute_capability": "8.9"}),
            "built for compute capability 9.0, the GPU has 8.9",
        ),
        ({}, {"compute_capability": None}, "there is no NVIDIA GPU"),
    ],
)
def test_the_gpu_and_its_driver(
    requires: dict[str, Any], there: dict[str, Any], reason: str
) -> None:
    verdict = check_requirements(
        "tensorrt", EXACT | requires, Machine(**{"compute_capability": "9.0"} | there), "cuda"
    )
    assert verdict.ok == (not reason)
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("target", "requires", "fits"),
    [
        ("sm=90,tensorrt=10.3", EXACT, True),
        ("sm=90,tensorrt=10.4", EXACT, False),
        ("sm=90,tensorrt_dispatch=10.16", EXACT, False),
        ("sm=90,tensorrt_dispatch=10.16", INSIDE, True),
        ("sm=90,tensorrt_dispatch=10.16", OUTSIDE, True),
        ("sm=90,tensorrt_dispatch=10.16,lean_library=none", OUTSIDE, False),
        ("sm=90,tensorrt_dispatch=10.16,lean_library=10.3.0", OUTSIDE, True),
        ("sm=90,tensorrt_dispatch=10.16,lean_library=10.3.1", OUTSIDE, False),
        ("sm=90,tensorrt_lean=10.3.0", OUTSIDE, True),
        ("sm=90,tensorrt=none", INSIDE, False),
        ("sm=90,cuda=12.4", EXACT | {"cuda": "13.0"}, False),
        ("sm=90,cuda=13.0", EXACT | {"cuda": "12.0"}, True),
        ("sm=90", OUTSIDE, True),
        ("sm=89", EXACT | {"compute_capabilities": ["9.0"]}, False),
    ],
)
def test_targets(target: str, requires: dict[str, Any], fits: bool) -> None:
    parsed = Target.parse(target)
    assert Target.parse(str(parsed)) == parsed
    assert bool(check_requirements("tensorrt", requires, parsed.facts(), "cuda")) == fits


@pytest.mark.parametrize("text", ["cuda=new", "lean_library=x", "tensorrt=ten"])
def test_bad_targets(text: str) -> None:
    with pytest.raises(SettingsError, match="is no version"):
        Target.parse(text)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without lean libraries but those in this folder."""
    monkeypatch.delenv(ENV_LEAN, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    monkeypatch.setattr(lean_library.sys, "platform", "linux")
    monkeypatch.setattr(lean_library, "_PACKAGES", ())
    return tmp_path


def library(folder: Path, release: str) -> Path:
    """As distributions install it: the real name tells the release. Nothing can load it."""
    folder.mkdir(exist_ok=True)
    real = folder / f"libnvinfer_lean.so.{release}"
    real.write_bytes(b"")
    link = folder / f"libnvinfer_lean.so.{release.split('.')[0]}"
    link.symlink_to(real.name)
    return link


def test_a_lean_library_is_found_where_it_may_be(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = find_lean_library("8.6.0.12")
    assert isinstance(refused, Verdict)
    assert "no libnvinfer_lean.so.8 of that release was found" in refused.reason
    assert ENV_LEAN in refused.remedy
    third = library(folders / "loader", "8.6.0")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere{os.pathsep}{third.parent}")
    assert find_lean_library("8.6.0.12") == str(third)
    second = library(folders / "tensorrt_lean_for_test", "8.6.0")
    (second.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(folders)
    monkeypatch.setattr(lean_library, "_PACKAGES", ("tensorrt_lean_for_test", "not_installed"))
    assert find_lean_library("8.6.0.12") == str(second)
    first = library(folders / "named", "8.6.0")
    for value in (first, first.parent, f"/nowhere{os.pathsep}{first.parent}"):
        monkeypatch.setenv(ENV_LEAN, str(value))
        assert find_lean_library("8.6.0.12") == str(first)
    other = library(folders / "other", "8.6.1")
    monkeypatch.setenv(ENV_LEAN, str(other))
    assert find_lean_library("8.6.0.12") == str(second)
    assert find_lean_library("8.6.1") == str(other)


def test_libraries_of_other_releases_are_told(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = library(folders / "other", "8.6.1")
    monkeypatch.setenv(ENV_LEAN, str(other))
    refused = find_lean_library("8.6.0.12")
    assert isinstance(refused, Verdict)
    assert f"({other} is of 8.6.1)" in refused.reason


@pytest.mark.parametrize(
    ("said", "release"),
    [(8600, "8.6.0"), (8612, "8.6.12"), (100300, "10.3.0"), (101601, "10.16.1")],
)
def test_a_library_tells_its_release(
    folders: Path, monkeypatch: pytest.MonkeyPatch, said: int, release: str
) -> None:
    """8600 and 101601 are what the libraries of 8.6.0 and 10.16.1 say."""
    major = release.split(".", maxsplit=1)[0]
    file = folders / f"libnvinfer_lean.so.{major}"
    file.touch()

    class Library:
        def __init__(self, path: str) -> None:
            if path != str(file):
                raise OSError("there is none")

        def getInferLibVersion(self) -> int:  # noqa: N802
            return said

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setenv(ENV_LEAN, str(folders))
    assert find_lean_library(f"{release}.12") == str(file)


def test_a_file_that_is_no_library_is_passed_over(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folders / "notes.txt"
    file.write_text("no library")
    monkeypatch.setenv(ENV_LEAN, str(file))
    assert isinstance(find_lean_library("8.6.0"), Verdict)


def test_versions_are_those_of_the_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed wheel, made by hand: its module, and its metadata under the name PyPI has."""
    (tmp_path / "tensorrt_dispatch").mkdir()
    (tmp_path / "tensorrt_dispatch" / "__init__.py").touch()
    info = tmp_path / "tensorrt_dispatch_cu13_bindings-10.16.1.11.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorrt_dispatch_cu13_bindings\nVersion: 10.16.1.11\n"
    )
    before = this_machine.this_machine()
    monkeypatch.syspath_prepend(tmp_path)
    found = this_machine.this_machine()
    assert found.versions == {**before.versions, "tensorrt_dispatch": "10.16.1.11"}
    assert found.lean_library is find_lean_library
