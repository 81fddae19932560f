"""Builds `libportrt_runtime.so`, and `libportrt.so` without torch.

Once for the same sources, torch and compiler.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from portrt.cache.location import CPP, CPP_LIBRARY, CPP_WITHOUT_TORCH, cache_folder
from portrt.cpp import sources
from portrt.cpp.compiler import Torch, compiler, installed_torch, run, version_of
from portrt.cpp.sources import needs_torch
from portrt.errors import BuildError, SettingsError

logger = logging.getLogger(__name__)

# The oldest torch whose stable C interface is used: one binary for it and for later ones.
_TARGET_VERSION = "0x020a000000000000"
_FLAGS = (
    "-std=c++20",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    f"-DTORCH_TARGET_VERSION={_TARGET_VERSION}",
)


@dataclass(frozen=True)
class Built:
    """What was built.

    Attributes:
        prefix: Folder with `lib` and `include`.
        torch: The torch that it was built against.
    """

    prefix: Path
    torch: Torch

    @property
    def library(self) -> Path:
        """Return the path of the library."""
        return self.prefix / "lib" / CPP_LIBRARY

    @property
    def without_torch(self) -> Path:
        """Return the path of the library of programs that run without torch."""
        return self.prefix / "lib" / CPP_WITHOUT_TORCH

    @property
    def flags_without_torch(self) -> list[str]:
        """Return what compiles and links a program that uses `portrt/program.h`."""
        lib = self.prefix / "lib"
        return [
            "-std=c++17",
            f"-I{self.prefix / 'include'}",
            f"-L{lib}",
            f"-Wl,-rpath,{lib}",
            "-lportrt",
        ]

    @property
    def flags(self) -> list[str]:
        """Return what compiles and links a program that uses torch and loads the library."""
        lib = self.torch.libraries
        return [
            "-std=c++20",
            f"-I{self.prefix / 'include'}",
            *(f"-isystem{folder}" for folder in self.torch.includes),
            f"-L{lib}",
            f"-Wl,-rpath,{lib}",
            "-Wl,--no-as-needed",
            "-ltorch_cpu",
            "-lc10",
            "-ldl",
        ]


def build(prefix: str | os.PathLike[str] | None = None) -> Built:
    """Build the library, unless it is there and of the same sources, torch and compiler.

    Args:
        prefix: Folder for `lib/libportrt_runtime.so` and `include/portrt/`; by default one in
            portrt's cache.

    Raises:
        BuildError: There is no compiler or no torch, or the compiler fails.
        SettingsError: There is no cache, and no prefix.
    """
    torch, command = installed_torch(), compiler()
    key = _key(torch, command)
    made = Built(_default_prefix(key) if prefix is None else Path(prefix).resolve(), torch)
    stamp = made.library.with_suffix(".json")
    there = made.library.is_file() and made.without_torch.is_file()
    if there and _stored_key(stamp) == key:
        logger.info("%s is there", made.library)
        return made
    made.library.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for header in sources.headers():
        target = made.prefix / header.relative_to(sources.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(header, target)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=made.prefix) as folder:
        workdir = Path(folder)
        _compile(torch, command, workdir)
        stored = {"key": key, "portrt": metadata.version("portrt")}
        (workdir / CPP_WITHOUT_TORCH).replace(made.without_torch)
        (workdir / CPP_LIBRARY).replace(made.library)
        (workdir / stamp.name).write_text(json.dumps(stored), encoding="utf-8")
        (workdir / stamp.name).replace(stamp)
    return made


def _compile(torch: Torch, command: list[str], workdir: Path) -> None:
    root = sources.ROOT
    includes = [f"-I{root}", f"-I{root / 'include'}", f"-isystem{torch.includes[0]}"]
    units = sources.units()
    if not units:
        raise BuildError(
            f"there are no C++ sources in {root}",
            "the sources that are in portrt's wheel",
            "install portrt again",
        )
    logger.info("compiling %d files with %s", len(units), command[0])

    def compiled(item: tuple[int, Path]) -> str:
        index, source = item
        target = str(workdir / f"{index}.o")
        run([*command, *_FLAGS, *includes, "-c", str(source), "-o", target])
        return target

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        objects = list(pool.map(compiled, enumerate(units)))
    link = [*command, "-shared", "-Wl,--no-undefined"]
    common = ["-ldl", "-lpthread"]
    own = [item for item, unit in zip(objects, units, strict=True) if not needs_torch(unit)]
    run([*link, *own, *common, "-o", str(workdir / CPP_WITHOUT_TORCH)])
    with_torch = [f"-L{torch.libraries}", "-ltorch_cpu", "-lc10", *common]
    run([*link, *objects, *with_torch, "-o", str(workdir / CPP_LIBRARY)])


def _key(torch: Torch, command: list[str]) -> str:
    parts = [sources.digest(), torch.version, str(torch.folder), version_of(command), *_FLAGS]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _stored_key(stamp: Path) -> str | None:
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("key") if isinstance(found, dict) else None


def _default_prefix(key: str) -> Path:
    cache = cache_folder()
    if cache is None:
        raise SettingsError(
            "the cache is off, and no prefix is given",
            "a folder for the library",
            "give --prefix, or set PORTRT_CACHE_DIR to a folder",
        )
    return cache / CPP / key[:16]
