"""TensorRT-RTX: engines for RTX GPUs, built on any machine, without a GPU."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import time
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from typing import Any

import torch

from portrt.artifacts import Block, Engine, Verdict
from portrt.backends.base import Material, Session, supports_dtypes
from portrt.backends.build_process import Built, build_in_process
from portrt.convert import NEWEST_OPSET, OnnxModel
from portrt.errors import BuildError, ConvertError, EngineError
from portrt.package import expr
from portrt.package.machine import arch_name
from portrt.package.manifest import EngineSpec, Manifest
from portrt.package.requirements import INSTALL, Facts, judge
from portrt.package.weights import WeightsImage
from portrt.settings import Settings

_INSTALL = INSTALL["tensorrt_rtx"]
_BINDINGS = "tensorrt-rtx-cu13-bindings"
_DTYPES = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
    }
)
# Compute capabilities of an engine built without a target list, and of those the library knows.
# Source: TensorRT-RTX documentation, "Support matrix"; 9.0 and 10.x are refused.
_DEFAULT_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
# The attention operator of opset 23 becomes a fused layer, for which there may be no kernel; at
# opset 22 attention is written as matrix products and a softmax.
_OPSETS = (NEWEST_OPSET, 22)


class TensorRTRTXBackend:
    """Builds anywhere; runs on RTX GPUs."""

    name = "tensorrt_rtx"

    def can_build(self, python: str | None = None) -> Verdict:
        if python is not None:
            return Verdict(True, f"{python} builds; only a build shows whether it can")
        return _installed()

    def can_run(self, device: str) -> Verdict:
        if device != "cuda":
            return Verdict(
                False, f"it runs on CUDA tensors, the inputs are on {device}", "use CUDA tensors"
            )
        if not torch.cuda.is_available():
            return Verdict(False, "there is no NVIDIA GPU that torch can use", "use an RTX GPU")
        return _installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        return supports_dtypes(node, _DTYPES, self.name)

    def build(self, material: Material, settings: Settings) -> Engine:
        started = time.perf_counter()
        profile = _profile(material.block)
        job = {
            "module": "tensorrt_rtx",
            "install": _INSTALL,
            "profiles": [profile],
            "optimization_level": settings.optimization_level,
            "workspace_size": settings.workspace_size,
            "version_compatible": settings.version_compatible,
            "hardware_compatible": settings.hardware_compatible,
            "compute_capabilities": list(settings.target_compute_capabilities),
        }
        model, built = _build_at_first_opset(material, job, settings)
        targets = settings.target_compute_capabilities or _DEFAULT_CAPABILITIES
        return Engine(
            backend=self.name,
            data=built.data,
            build={
                "library": "tensorrt_rtx",
                "version": built.result["version"],
                "opset": model.opset,
                "onnx_nodes": model.nodes,
                "layers": built.result["layers"],
                "flags": built.result["flags"],
                "profiles": [profile],
                "os": built.result["os"],
                "arch": built.result["arch"],
                "seconds": round(time.perf_counter() - started, 3),
            },
            requires={
                "device": ["cuda"],
                "compute_capabilities": list(targets),
                "tensorrt_rtx": built.result["version"],
            },
        )

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        if not able:
            return able
        major, minor = torch.cuda.get_device_capability(device)
        facts = Facts(
            os=platform.system().lower(),
            arch=arch_name(platform.machine()),
            compute_capability=f"{major}.{minor}",
            versions={} if (version := _library_version()) is None else {self.name: version},
        )
        return judge(self.name, engine.requires, facts, device.type)

    def open(
        self,
        engine: EngineSpec,  # noqa: ARG002  (the contract has these)
        manifest: Manifest,
        data: torch.Tensor,  # noqa: ARG002
        weights: WeightsImage | None,  # noqa: ARG002
        *,
        device: torch.device,  # noqa: ARG002
        lean: bool = False,  # noqa: ARG002
    ) -> Session:
        raise EngineError(
            f"the tensorrt_rtx engine of {manifest.name} cannot be opened",
            "a version of portrt that runs tensorrt_rtx engines",
            "let the program run in PyTorch: fallback='eager'",
        )


@lru_cache
def _installed() -> Verdict:
    """By looking for the packages alone: the native library is loaded by the worker only."""
    if not _is_there("tensorrt_rtx"):
        return Verdict(False, "the package tensorrt_rtx is not installed", _INSTALL)
    version = _version(_BINDINGS)
    # PyPI's bindings find the libraries in a package beside them; others bring their own.
    if version is not None and not _is_there("tensorrt_rtx_libs"):
        return Verdict(False, "its libraries are not installed", f"{_INSTALL}-libs")
    return Verdict(True, f"TensorRT-RTX {version or _version('tensorrt_rtx') or ''}".strip())


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


def _build_at_first_opset(
    material: Material, job: dict[str, Any], settings: Settings
) -> tuple[OnnxModel, Built]:
    """Build at the newest opset that the builder takes; the last refusal is raised."""
    *attempts, last = _opsets(material.block)
    for opset in attempts:
        with contextlib.suppress(BuildError, ConvertError):
            return _build(material, job, settings, opset)
    return _build(material, job, settings, last)


def _build(
    material: Material, job: dict[str, Any], settings: Settings, opset: int
) -> tuple[OnnxModel, Built]:
    model = material.convert(opset)
    built = build_in_process(
        job,
        model.data,
        material.image if model.weights else None,
        what=f"{material.block.name} for tensorrt_rtx",
        python=settings.builder_python,
        timeout_s=settings.build_timeout_s,
    )
    return model, built


def _opsets(block: Block) -> Iterable[int]:
    """Newest first; without attention all of them say the same, and one is enough."""
    targets = {node.target for node in block.program.graph.nodes}
    if torch.ops.aten.scaled_dot_product_attention.default not in targets:
        return (NEWEST_OPSET,)
    return _OPSETS


def _profile(block: Block) -> dict[str, list[list[int]]]:
    """Input -> smallest, best and largest shape, for one optimization profile.

    Raises:
        BuildError: A dimension has no upper bound.
    """
    return {
        entry["name"]: [
            [_size(block, index, axis, bound) for axis in range(len(entry["shape"]))]
            for bound in ("min", "opt", "max")
        ]
        for index, entry in enumerate(block.inputs)
    }


def _size(block: Block, index: int, axis: int, bound: str) -> int:
    size = block.inputs[index]["shape"][axis]
    if not isinstance(size, dict):
        return int(expr.evaluate(size, lambda i, a: _size(block, i, a, bound)))
    if size[bound] is None:
        raise BuildError(
            f"dimension {size['symbol']} of input {block.inputs[index]['name']!r} has no upper "
            "bound",
            "a largest size for each dynamic dimension, which TensorRT-RTX needs",
            "give torch.export.Dim(..., max=...) or portrt.Input(max_shape=...)",
        )
    return int(size[bound])
