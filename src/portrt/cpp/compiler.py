"""The C++ compiler, and the installed torch that is compiled against; torch is not imported."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from portrt.errors import BuildError

_TIMEOUT_S = 600
_NAMES = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Torch:
    """An installed torch.

    Attributes:
        folder: Folder of the package.
        version: Its version.
    """

    folder: Path
    version: str

    @property
    def includes(self) -> list[Path]:
        """Return the folders of its headers."""
        include = self.folder / "include"
        return [include, include / "torch" / "csrc" / "api" / "include"]

    @property
    def libraries(self) -> Path:
        """Return the folder of its libraries."""
        return self.folder / "lib"


def installed_torch() -> Torch:
    """Find torch, without an import.

    Raises:
        BuildError: It is not installed, or without its headers.
    """
    spec = find_spec("torch")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    header = folder / "include" / "torch" / "csrc" / "stable" / "c" / "shim.h"
    if not header.is_file():
        raise BuildError(
            "there is no torch with the headers of its stable C interface",
            "torch 2.11 or newer, as its wheels are",
            "pip install torch",
        )
    return Torch(folder, metadata.version("torch"))


def compiler() -> list[str]:
    """Return the command of the C++ compiler: that in CXX, or else the first on the path.

    Raises:
        BuildError: There is none.
    """
    given = shlex.split(os.environ.get("CXX", ""))
    for command in [given] if given else [[name] for name in _NAMES]:
        if shutil.which(command[0]):
            return command
    raise BuildError(
        f"there is no C++ compiler {given[0]}" if given else "there is no C++ compiler",
        "one that knows C++20, such as g++ 10 or newer",
        "apt-get install g++, or name one in CXX",
    )


def version_of(command: list[str]) -> str:
    """Return the first line of what a compiler says about itself."""
    lines = run([*command, "--version"]).splitlines()
    return lines[0] if lines else ""


def run(command: list[str]) -> str:
    """Run a compiler and return what it prints.

    Raises:
        BuildError: It fails.
    """
    try:
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as err:
        said = "\n".join(f"{err.stdout}{err.stderr}".strip().splitlines()[:20])
        raise BuildError(
            f"the C++ compiler failed: {shlex.join(command)}\n{said}",
            "sources that compile with C++20",
            "name another compiler in CXX, such as g++ 12",
        ) from err
    except (OSError, subprocess.TimeoutExpired) as err:
        raise BuildError(
            f"the C++ compiler {command[0]} does not run: {err}",
            "a compiler that runs",
            "name another one in CXX",
        ) from err
    return done.stdout
