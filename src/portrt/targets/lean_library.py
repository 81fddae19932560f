"""Lookup of a TensorRT lean runtime library, for engines that were built without one inside."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from portrt.targets.versions import numbers, same_release
from portrt.verdict import Verdict

# Files or folders of lean libraries, separated as in PATH.
ENV_LEAN = "PORTRT_TENSORRT_LEAN"

# TensorRT 8.6 has its library in the first package, newer ones in the second.
_PACKAGES = ("tensorrt_lean", "tensorrt_lean_libs")


def find_lean_library(built: str) -> str | Verdict:
    """Return the path of a lean runtime library of the engine's release, or a no with the reason.

    Searches $PORTRT_TENSORRT_LEAN, the packages `tensorrt_lean` and `tensorrt_lean_libs`,
    $LD_LIBRARY_PATH ($PATH on Windows), and then the default folders of the system's loader.

    Args:
        built: Version of the TensorRT that built the engine, such as "8.6.0.12".
    """
    others: list[str] = []
    for candidate in _candidates(built):
        release = release_of(candidate)
        if release is not None and same_release(built, release):
            return candidate
        if release is not None:
            others.append(f"{candidate} is of {release}")
    found = f" ({'; '.join(others)})" if others else ""
    release = ".".join(map(str, numbers(built)[:3]))
    return Verdict.no(
        "library_version" if others else "library_missing",
        f"it was built by tensorrt {built} without a lean runtime inside, and no "
        f"{_file_names(built)[0]} of that release was found{found}",
        f"install tensorrt_lean {release}, or name its library in {ENV_LEAN}",
    )


def _candidates(built: str) -> Iterator[str]:
    names = _file_names(built)
    for entry in _paths(ENV_LEAN):
        if entry.is_file():
            yield str(entry)
        else:
            yield from _in_folder(entry, names)
    for package in _PACKAGES:
        for folder in _folders_of(package):
            yield from _in_folder(Path(folder), names)
    for entry in _paths("PATH" if sys.platform == "win32" else "LD_LIBRARY_PATH"):
        yield from _in_folder(entry, names)
    yield from names  # for the loader's default folders


def _file_names(built: str) -> tuple[str, ...]:
    major = (numbers(built) or [0])[0]
    if sys.platform == "win32":
        return (f"nvinfer_lean_{major}.dll", "nvinfer_lean.dll")
    return (f"libnvinfer_lean.so.{major}",)


def _paths(variable: str) -> list[Path]:
    return [Path(part) for part in os.environ.get(variable, "").split(os.pathsep) if part]


def _in_folder(folder: Path, names: tuple[str, ...]) -> Iterator[str]:
    yield from (str(folder / name) for name in names if (folder / name).is_file())


def _folders_of(package: str) -> list[str]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    return list(spec.submodule_search_locations or []) if spec else []


@lru_cache
def release_of(library: str) -> str | None:
    """Return major.minor.patch of a TensorRT library, or None if the file is not one.

    The version is taken from the end of the resolved file name, such as libnvinfer_lean.so.8.6.0,
    or else from the library itself, which is loaded for it; opening an engine loads it anyway.
    """
    named = re.search(r"\.so\.(\d+\.\d+\.\d+)$", str(Path(library).resolve()))
    if named and Path(library).is_file():
        return named[1]
    try:
        version = int(ctypes.CDLL(library).getInferLibVersion())
    except (OSError, AttributeError, ValueError):
        return None
    return _decoded(version)


def _decoded(version: int) -> str:
    """Decode an integer version: 8600 is 8.6.0 and 101601 is 10.16.1.

    Source: NV_TENSORRT_VERSION in NvInferVersion.h.
    """
    unit = 1000 if version < 10000 else 10000
    major, rest = divmod(version, unit)
    minor, patch = divmod(rest, 100)
    return f"{major}.{minor}.{patch}"
