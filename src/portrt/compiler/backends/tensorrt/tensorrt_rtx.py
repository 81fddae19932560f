"""TensorRT-RTX: engines for RTX GPUs, built on any machine, without a GPU."""

from __future__ import annotations

import importlib.util
import platform
from functools import lru_cache
from importlib import metadata

import torch

from portrt.compiler.backends.base import BuildInput
from portrt.compiler.backends.tensorrt.build import build_engine, supports
from portrt.compiler.backends.tensorrt.options import TensorRTOptions
from portrt.compiler.convert import NEWEST_OPSET
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.engines.base import Session
from portrt.engines.tensorrt.open import open_session
from portrt.format.manifest import EngineSpec, Manifest
from portrt.targets.backends import INSTALL
from portrt.targets.machine import Machine
from portrt.targets.requirements import judge
from portrt.targets.this_machine import arch_name
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

_INSTALL = INSTALL["tensorrt_rtx"]
_BINDINGS = "tensorrt-rtx-cu13-bindings"
# Compute capabilities of an engine built without a target list, and of those the library knows.
# Source: TensorRT-RTX documentation, "Support matrix"; 9.0 and 10.x are refused.
_DEFAULT_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
# The attention operator of opset 23 becomes a fused layer, for which there may be no kernel; at
# opset 22 attention is written as matrix products and a softmax.
_OPSETS = (NEWEST_OPSET, 22)


class TensorRTRTXBackend:
    """Builds anywhere; runs on RTX GPUs."""

    name = "tensorrt_rtx"

    def can_build(self, settings: Settings | None = None) -> Verdict:
        if settings is not None and (python := settings.of(TensorRTOptions).builder_python):
            return Verdict.yes(f"{python} builds; only a build shows whether it can")
        return _installed()

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
        return _installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        return supports(node, self.name)

    def build(self, material: BuildInput, settings: Settings) -> Engine:
        made = build_engine(
            material, settings, library=self.name, install=_INSTALL, opsets=_OPSETS, options={}
        )
        options = settings.of(TensorRTOptions)
        targets = options.target_compute_capabilities or _DEFAULT_CAPABILITIES
        return Engine(
            backend=self.name,
            data=made.data,
            build=made.build,
            requires={
                "device": ["cuda"],
                "compute_capabilities": list(targets),
                "tensorrt_rtx": made.result["version"],
            },
            weights=made.weights,
        )

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        if not able:
            return able
        major, minor = torch.cuda.get_device_capability(device)
        facts = Machine(
            os=platform.system().lower(),
            arch=arch_name(platform.machine()),
            compute_capability=f"{major}.{minor}",
            versions={} if (version := _library_version()) is None else {self.name: version},
        )
        return judge(self.name, engine.requires, facts, device.type)

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
        return open_session(
            engine,
            manifest,
            data,
            weights,
            library=self.name,
            built=engine.requires[self.name],
            device=device,
        )


@lru_cache
def _installed() -> Verdict:
    """By looking for the packages alone: the native library is loaded by the worker only."""
    if not _is_there("tensorrt_rtx"):
        return Verdict.no("library_missing", "the package tensorrt_rtx is not installed", _INSTALL)
    version = _version(_BINDINGS)
    # PyPI's bindings find the libraries in a package beside them; others bring their own.
    if version is not None and not _is_there("tensorrt_rtx_libs"):
        return Verdict.no("library_missing", "its libraries are not installed", f"{_INSTALL}-libs")
    return Verdict.yes(f"TensorRT-RTX {version or _version('tensorrt_rtx') or ''}".strip())


def _library_version() -> str | None:
    return _version(_BINDINGS) or _version("tensorrt_rtx")


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
