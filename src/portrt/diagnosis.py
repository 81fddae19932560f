"""doctor: reports which backends work on this machine, and what the others lack."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

from portrt.compiler.backends import registry as builders
from portrt.engines import registry as engines
from portrt.targets.backends import names
from portrt.verdict import Verdict

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class BackendStatus:
    """One backend on this machine.

    Attributes:
        name: Name of the backend, as in `engines=`.
        builds: Whether engines can be built here.
        runs: Device type of the inputs -> whether engines can run here on such tensors.
    """

    name: str
    builds: Verdict
    runs: Mapping[str, Verdict]


@dataclass(frozen=True)
class Diagnosis:
    """This machine.

    Attributes:
        facts: Operating system, CPU, GPU and versions, as text.
        backends: Every backend, in the default order of preference.
    """

    facts: Mapping[str, str]
    backends: tuple[BackendStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return dataclasses.asdict(self)


def doctor() -> Diagnosis:
    """Report what every backend can do here. Builds and runs nothing."""
    return Diagnosis(_facts(), tuple(_status(name) for name in names()))


def _status(name: str) -> BackendStatus:
    runtime, builder = engines.runtime(name), builders.builder(name)
    runs = {device: runtime.can_run(device) for device in DEVICES}
    return BackendStatus(name, builder.can_build(), runs)


def _facts() -> dict[str, str]:
    return {
        "portrt": metadata.version("portrt"),
        "torch": str(torch.__version__),
        "python": f"{platform.python_version()} ({sys.executable})",
        "os": f"{platform.system().lower()} {platform.machine()}",
        "gpu": _gpu(),
    }


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    major, minor = torch.cuda.get_device_capability()
    name = torch.cuda.get_device_name()
    return f"{name}, compute capability {major}.{minor}, CUDA {torch.version.cuda}"
