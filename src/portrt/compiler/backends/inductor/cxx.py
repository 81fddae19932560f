"""The C++ compiler that Inductor uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from portrt.verdict import Verdict

ENV = "CXX"
_INSTALL = "apt-get install g++ (or the like), or name a compiler in CXX"
# The system's own first: others on PATH, such as conda's, were seen to link libstdc++ statically,
# and loading such an engine ends the process.
_SYSTEM = "/usr/bin/g++"
_TIMEOUT_S = 60


def cxx() -> str | None:
    """Return the compiler: that of the environment, else the system's, else one on PATH."""
    given = os.environ.get(ENV)
    if given:
        return shutil.which(given)
    if sys.platform == "darwin":
        return shutil.which("clang++")
    return _SYSTEM if os.access(_SYSTEM, os.X_OK) else shutil.which("g++")


def compiler_verdict() -> Verdict:
    """Return whether there is a C++ compiler; the reason of a yes is its version."""
    found = cxx()
    if found is None:
        given = os.environ.get(ENV)
        reason = f"{ENV}={given!r} is no program" if given else "there is no C++ compiler g++"
        return Verdict.no("library_missing", reason, _INSTALL)
    return _verdict(found)


@lru_cache
def _verdict(path: str) -> Verdict:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as err:
        return Verdict.no("library_missing", f"{path} cannot be run: {err}", _INSTALL)
    return Verdict.yes((done.stdout.splitlines() or [path])[0])


def environment(cache: Path) -> dict[str, str]:
    """Return the environment of a build: this one's, with the compiler and Inductor's folder.

    Args:
        cache: Folder of what Inductor keeps.
    """
    found = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    path = cxx()
    if path is not None:
        found[ENV] = path
        c = Path(path).with_name(Path(path).name.replace("++", "cc" if "g++" in path else ""))
        if "CC" not in os.environ and os.access(c, os.X_OK):
            found["CC"] = str(c)  # Triton's, which must be of the same kind
    return found
