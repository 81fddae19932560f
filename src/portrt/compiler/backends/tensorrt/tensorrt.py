"""TensorRT: engines for NVIDIA GPUs, built where a GPU is and run by any of its runtimes."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from functools import lru_cache

import torch

from portrt.cache.location import timing_cache_folder
from portrt.compiler.backends.base import BuildInput
from portrt.compiler.backends.tensorrt.build import build_engine, supports
from portrt.compiler.backends.tensorrt.options import TensorRTOptions
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.engines.base import Session
from portrt.engines.tensorrt.open import open_session
from portrt.errors import BuildError, EngineError
from portrt.format.manifest import EngineSpec, Manifest
from portrt.runtime.trust import is_trusted
from portrt.targets.backends import INSTALL, RUNTIMES
from portrt.targets.lean_library import find_lean_library
from portrt.targets.machine import Machine
from portrt.targets.requirements import judge
from portrt.targets.tensorrt_rules import runtime_for
from portrt.targets.this_machine import arch_name, this_machine
from portrt.targets.trust import HOST_CODE
from portrt.targets.versions import same_release
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

_INSTALL = INSTALL["tensorrt"]
# Newest opset first, by the major version of the builder: what its parser reads.
# Source: TensorRT's release notes and the operator page of its ONNX parser.
_OPSETS = {8: (17,), 9: (20, 18, 17)}
_OPSETS_OF_LATER = (23, 20, 18)
_PROBE_S = 120
_PROBE = "import tensorrt; print('version', tensorrt.__version__)"


class TensorRTBackend:
    """Builds where a GPU is; runs on GPUs of the compute capability that it was built for."""

    name = "tensorrt"

    def can_build(self, settings: Settings | None = None) -> Verdict:
        if not torch.cuda.is_available():
            return Verdict.no(
                "no_gpu",
                "its builder measures kernels on a GPU, and torch can use none here",
                "build on a machine with the GPU that the engine is for",
            )
        if settings is not None and (python := settings.of(TensorRTOptions).builder_python):
            return Verdict.yes(f"{python} builds; only a build shows whether it can")
        if importlib.util.find_spec("tensorrt") is None:
            return Verdict.no("library_missing", "the package tensorrt is not installed", _INSTALL)
        return Verdict.yes(f"TensorRT {this_machine().versions['tensorrt']}")

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
            return Verdict.no(
                "library_missing", f"none of {', '.join(RUNTIMES)} is installed", _INSTALL
            )
        return Verdict.yes(", ".join(f"{name} {found[name]}" for name in names))

    def supports(self, node: torch.fx.Node) -> Verdict:
        return supports(node, self.name)

    def build(self, material: BuildInput, settings: Settings) -> Engine:
        options = settings.of(TensorRTOptions)
        version = builder_version(options.builder_python or sys.executable)
        major, minor = torch.cuda.get_device_capability()
        folder = timing_cache_folder(settings.cache_dir)
        made = build_engine(
            material,
            settings,
            library=self.name,
            install=_INSTALL,
            opsets=_OPSETS.get(int(version.split(".")[0] or 0), _OPSETS_OF_LATER),
            options={
                "exclude_lean_runtime": options.exclude_lean_runtime,
                "timing_cache": None if folder is None else str(folder),
                "gpu": torch.cuda.get_device_name().replace(" ", "-"),
            },
        )
        flags = made.result["flags"]
        requires = {
            "device": ["cuda"],
            "os": [made.result["os"]],
            "arch": [arch_name(made.result["arch"])],
            "tensorrt": made.result["version"],
            "version_compatible": "version_compatible" in flags,
        }
        if "hardware_compatible" in flags:
            requires["compute_capability_min"] = "8.0"
        else:
            requires["compute_capabilities"] = [f"{major}.{minor}"]
        if "version_compatible" in flags:
            outside = "exclude_lean_runtime" in flags
            requires["lean_runtime"] = "outside" if outside else "inside"
            requires["host_code"] = True
        return Engine(
            backend=self.name,
            data=made.data,
            build=made.build,
            requires=requires,
            weights=made.weights,
        )

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        if not able:
            return able
        return judge(self.name, engine.requires, _facts(device), device.type)

    def open(
        self,
        engine: EngineSpec,
        manifest: Manifest,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,
        lean: bool = False,  # noqa: ARG002  (the contract has it)
    ) -> Session:
        built = str(engine.requires["tensorrt"])
        facts = _facts(device)
        library = runtime_for(engine.requires, facts)
        if isinstance(library, Verdict):
            raise EngineError(
                f"the tensorrt engine of {manifest.name} cannot be opened: {library.reason}",
                "a runtime for it",
                library.remedy,
            )
        return open_session(
            engine,
            manifest,
            data,
            weights,
            library=library,
            built=built,
            device=device,
            lean_runtime=_lean_runtime(engine, library, built, facts),
            host_code=is_trusted(HOST_CODE, engine.data.sha256),
        )


def _lean_runtime(engine: EngineSpec, library: str, built: str, facts: Machine) -> str | None:
    """Path of the lean library that a dispatch runtime needs, if it does."""
    if engine.requires.get("lean_runtime") != "outside":
        return None
    if library != "tensorrt_dispatch" and same_release(built, facts.versions[library]):
        return None
    found = find_lean_library(built)
    if isinstance(found, Verdict):
        raise EngineError(
            f"the tensorrt engine has no lean runtime: {found.reason}",
            "the lean runtime library of the release that built it",
            found.remedy,
        )
    return found


def _facts(device: torch.device) -> Machine:
    major, minor = torch.cuda.get_device_capability(device)
    return dataclasses.replace(this_machine(), compute_capability=f"{major}.{minor}")


@lru_cache
def builder_version(python: str) -> str:
    """Version of the TensorRT that an interpreter has.

    Raises:
        BuildError: It cannot be started, or has none.
    """
    try:
        done = subprocess.run(
            [python, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
        words = (done.stdout.strip().splitlines() or [""])[-1].split()
    except (OSError, subprocess.TimeoutExpired) as err:
        raise BuildError(
            f"the engine builder cannot be started with {python}: {err}",
            "a Python interpreter that has the TensorRT bindings",
            "correct builder_python",
        ) from err
    if len(words) != 2 or words[0] != "version":
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BuildError(
            f"{python} has no TensorRT: {last}",
            "a Python interpreter that has the TensorRT bindings",
            f"{_INSTALL}, there",
        )
    return words[1]
