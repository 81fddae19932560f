"""First loading of a package: in a child process, unless this machine has loaded it before.

Loading runs code of the package. One that was linked in another way ends the process without an
exception.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from portrt.cache.key import Key
from portrt.cache.store import open_cache
from portrt.errors import EngineError
from portrt.format.temp_file import temporary_folder
from portrt.targets.cpu_features import cpu_features

logger = logging.getLogger(__name__)

# SHA-256 of the packages that were loaded in a child process or before.
_known: set[str] = set()

_TIMEOUT_S = 300
# -I: nothing but what this process imports from is imported there.
_CHILD = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["path"]
import torch
from portrt.torch_internals.aoti import LoadedPackage
data = torch.from_file(job["package"], size=job["size"], dtype=torch.uint8)
try:
    LoadedPackage(data, torch.device(job["device"]))
except Exception as err:
    print(err)
"""


def mark_loaded(sha256: str) -> None:
    """Record that a package loads on this machine."""
    _known.add(sha256)
    cache = open_cache()
    if cache is not None:
        cache.put(_key(sha256), {"backend": "inductor", "block": ""}, _write_nothing)


def load_in_child(what: str, sha256: str, data: torch.Tensor, device: torch.device) -> None:
    """Load a package in a child process, unless it is known to load here.

    An exception there is none here: the package raises it again where it is opened.

    Args:
        what: The engine, for messages.
        sha256: Digest of the package, which was checked.
        data: The package, 1-D uint8 on the CPU.
        device: Device that it was compiled for.

    Raises:
        EngineError: The child process crashed, took too long, or could not be started.
    """
    if sha256 in _known:
        return
    cache = open_cache()
    if cache is not None and cache.get_file(_key(sha256)) is not None:
        _known.add(sha256)
        return
    logger.info("%s is loaded in a child process first", what)
    with temporary_folder("portrt-inductor-") as workdir:
        package = workdir / "package.pt2"
        data.numpy().tofile(package)
        job = {"path": sys.path, "package": str(package), "size": data.numel()}
        fault = _fault({**job, "device": str(device)}, workdir)
    if fault:
        raise EngineError(
            f"{what} cannot be loaded: the child process that loaded it first {fault}",
            "a package that loads",
            "compile the model again on this machine, or load it with rebuild='missing'",
        )
    mark_loaded(sha256)


def _fault(job: dict[str, Any], workdir: Path) -> str:
    """Run the child; return how it failed, or ""."""
    command = [sys.executable, "-I", "-c", _CHILD, json.dumps(job)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=workdir,
            env={**os.environ, "TMPDIR": str(workdir)},  # what a crash leaves is removed
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"took more than {_TIMEOUT_S} s"
    except OSError as err:
        return f"could not be started: {err}"
    if done.returncode >= 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return "" if done.returncode == 0 else f"failed: {(lines or ['no reason given'])[-1]:.300}"
    try:
        name = signal.Signals(-done.returncode).name
    except ValueError:
        name = f"signal {-done.returncode}"
    return f"was killed by {name}"


def _key(sha256: str) -> Key:
    machine = [platform.system(), platform.machine(), sorted(cpu_features() or ())]
    return Key.of("load", {"engine": sha256, "machine": machine, "torch": str(torch.__version__)})


def _write_nothing(path: Path) -> None:
    path.write_bytes(b"")
