"""TensorRT and TensorRT-RTX: engines for NVIDIA GPUs, run by any of their runtimes."""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
from functools import lru_cache
from importlib import metadata

import torch

from portrt.engines.base import DEFAULT_OPTIONS, OpenOptions, Session
from portrt.engines.tensorrt.open import open_session
from portrt.errors import EngineError
from portrt.format.manifest import EngineSpec, Signature
from portrt.targets.backends import BUILT_IN, RUNTIMES
from portrt.targets.lean_library import find_lean_library
from portrt.targets.machine import Machine
from portrt.targets.requirements import check_requirements
from portrt.targets.tensorrt_rules import runtime_for
from portrt.targets.this_machine import arch_name, this_machine
from portrt.targets.versions import same_release
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

_RTX_BINDINGS = "tensorrt-rtx-cu13-bindings"


class TensorRTRuntime:
    """Opens engines of TensorRT, by any library that can run them."""

    name = "tensorrt"

    def can_run(self, device: str) -> Verdict:
        if device != "cuda":
            return Verdict.no(
                "wrong_device",
                f"it runs on CUDA tensors, the inputs are on {device}",
                "use CUDA tensors",
            )
        if not torch.cuda.is_available():
            return Verdict.no(
                "no_gpu", "there is no NVIDIA GPU that torch can use", "use such a GPU"
            )
        found = {name: version for name, version in this_machine().versions.items() if version}
        names = [name for name in RUNTIMES if name in found]
        if not names:
            install = BUILT_IN[self.name].install
            return Verdict.no(
                "library_missing", f"none of {', '.join(RUNTIMES)} is installed", install
            )
        return Verdict.yes(", ".join(f"{name} {found[name]}" for name in names))

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        if not able:
            return able
        return check_requirements(self.name, engine.requires, _machine(device), device.type)

    def open(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,
        options: OpenOptions = DEFAULT_OPTIONS,
    ) -> Session:
        built = str(engine.requires["tensorrt"])
        machine = _machine(device)
        library = runtime_for(engine.requires, machine)
        if isinstance(library, Verdict):
            raise EngineError(
                f"the tensorrt engine of {signature.name} cannot be opened: {library.reason}",
                "a runtime for it",
                library.remedy,
            )
        return open_session(
            engine,
            signature,
            data,
            weights,
            library=library,
            built=built,
            device=device,
            lean_runtime=_lean_runtime(engine, library, built, machine),
            host_code=options.trusted_host_code,
        )


def _lean_runtime(engine: EngineSpec, library: str, built: str, machine: Machine) -> str | None:
    """Find the lean library that a dispatch runtime needs; None if it needs none."""
    if engine.requires.get("lean_runtime") != "outside":
        return None
    if library != "tensorrt_dispatch" and same_release(built, machine.versions[library]):
        return None
    found = find_lean_library(built)
    if isinstance(found, Verdict):
        raise EngineError(
            f"the tensorrt engine has no lean runtime: {found.reason}",
            "the lean runtime library of the release that built it",
            found.remedy,
        )
    return found


def _machine(device: torch.device) -> Machine:
    major, minor = torch.cuda.get_device_capability(device)
    return dataclasses.replace(this_machine(), compute_capability=f"{major}.{minor}")


class TensorRTRTXRuntime:
    """Opens engines of TensorRT-RTX, which run on RTX GPUs."""

    name = "tensorrt_rtx"

    def can_run(self, device: str) -> Verdict:
        if device != "cuda":
            return Verdict.no(
                "wrong_device",
                f"it runs on CUDA tensors, the inputs are on {device}",
                "use CUDA tensors",
            )
        if not torch.cuda.is_available():
            return Verdict.no(
                "no_gpu", "there is no NVIDIA GPU that torch can use", "use an RTX GPU"
            )
        return rtx_installed()

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        if not able:
            return able
        major, minor = torch.cuda.get_device_capability(device)
        facts = Machine(
            os=platform.system().lower(),
            arch=arch_name(platform.machine()),
            compute_capability=f"{major}.{minor}",
            versions={} if (version := _rtx_version()) is None else {self.name: version},
        )
        return check_requirements(self.name, engine.requires, facts, device.type)

    def open(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,
        options: OpenOptions = DEFAULT_OPTIONS,  # noqa: ARG002  (its engines carry no host code)
    ) -> Session:
        return open_session(
            engine,
            signature,
            data,
            weights,
            library=self.name,
            built=engine.requires[self.name],
            device=device,
        )


@lru_cache
def rtx_installed() -> Verdict:
    """Check for the packages of TensorRT-RTX; nothing is loaded."""
    install = BUILT_IN["tensorrt_rtx"].install
    if not _is_there("tensorrt_rtx"):
        return Verdict.no("library_missing", "the package tensorrt_rtx is not installed", install)
    version = _version(_RTX_BINDINGS)
    # PyPI's bindings need the libraries from another package; other builds include them.
    if version is not None and not _is_there("tensorrt_rtx_libs"):
        return Verdict.no("library_missing", "its libraries are not installed", f"{install}-libs")
    return Verdict.yes(f"TensorRT-RTX {version or _version('tensorrt_rtx') or ''}".strip())


def _rtx_version() -> str | None:
    return _version(_RTX_BINDINGS) or _version("tensorrt_rtx")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
