"""Derives an engine's requirements from its header and from what the user declares."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from portrt.compiler.options.precision import precision_name
from portrt.compiler.options.values import compute_capability
from portrt.compiler.plan import Engine
from portrt.errors import LoadError, SettingsError
from portrt.format.file_kind import require_file
from portrt.format.plan_header import PlanHeader, read_plan_header

LEAN_RUNTIMES = ("inside", "outside")

# Beside those that `compile` can request.
_QUANTIZED = ("int8", "fp8")

# What "hardware compatible" means. Source: NvInfer.h, HardwareCompatibilityLevel::kAMPERE_PLUS.
_OLDEST_COMPATIBLE = "8.0"


@dataclass(frozen=True)
class DeclaredRequirements:
    """Requirements of an engine that the user declares, because its header may not have them.

    Attributes:
        compute_capabilities: Compute capabilities of the GPUs that it was built for.
        hardware_compatible: Whether it runs on other GPUs than the one that it was built on.
        version_compatible: Whether later versions of TensorRT can run it.
        lean_runtime: Location of its lean runtime, "inside" or "outside".
        precision: Precision that it computes in, if lower than the types of its outputs.
    """

    compute_capabilities: Sequence[str] | str | None = None
    hardware_compatible: bool = False
    version_compatible: bool | None = None
    lean_runtime: str | None = None
    precision: Any = None


def plan_bytes_of(plan: bytes | bytearray | memoryview | torch.Tensor | str | Any) -> bytes:
    """Return the bytes of an engine.

    Args:
        plan: The bytes, a uint8 tensor of them, or the path of a file.

    Raises:
        LoadError: The file cannot be read.
        SettingsError: `plan` is none of these.
    """
    if isinstance(plan, torch.Tensor):
        if plan.dtype == torch.uint8 and plan.dim() == 1:
            return plan.detach().cpu().contiguous().numpy().tobytes()
        raise _no_bytes(f"a tensor of {plan.dtype} and shape {tuple(plan.shape)}")
    if isinstance(plan, (bytes, bytearray, memoryview)):
        return bytes(plan)
    if not isinstance(plan, (str, os.PathLike)):
        raise _no_bytes(f"a {type(plan).__module__}.{type(plan).__qualname__}")
    path = os.fspath(plan)
    try:
        require_file(path)
        return Path(path).read_bytes()
    except OSError as err:
        raise LoadError(
            f"the plan {path!r} cannot be read: {err.strerror}",
            "a file that holds a serialized engine",
            "correct the path",
        ) from err


def _no_bytes(fact: str) -> SettingsError:
    return SettingsError(
        f"the plan is {fact}",
        "bytes, a path, or a 1-D uint8 tensor",
        "give the result of the builder's build_serialized_network, or a file of it",
    )


def prebuilt_engine(
    data: bytes, declared: DeclaredRequirements, inputs: Sequence[str], outputs: Sequence[str]
) -> Engine:
    """Make the engine, with its entry for the manifest.

    Args:
        data: The serialized engine.
        declared: Requirements that the header may not have.
        inputs: Names of its input bindings, in the order of the block's inputs.
        outputs: Names of its output bindings, in the order of the block's outputs.

    Raises:
        PackageError: The bytes are no serialized engine.
        SettingsError: The declared requirements are impossible, or the header contradicts them.
    """
    header = read_plan_header(data, len(data))
    requires: dict[str, Any] = {"device": ["cuda"], header.backend: header.version}
    requires |= _gpus(header, declared)
    if header.backend == "tensorrt":
        requires |= _versions(header, declared)
    elif declared.version_compatible or declared.lean_runtime:
        raise SettingsError(
            "the plan is of TensorRT-RTX, and was declared version compatible",
            "no such declaration: TensorRT-RTX runs engines of its own release alone",
            "leave version_compatible and lean_runtime out",
        )
    return Engine(
        backend=header.backend,
        data=data,
        build={
            "library": header.backend,
            "version": header.version,
            "adopted": True,
            "bindings": {"inputs": list(inputs), "outputs": list(outputs)},
            **_precision(declared.precision),
        },
        requires=requires,
    )


def _precision(value: Any) -> dict[str, str]:
    name = value if value in _QUANTIZED else precision_name(value)
    return {} if name is None else {"precision": name}


def _gpus(header: PlanHeader, declared: DeclaredRequirements) -> dict[str, Any]:
    given = declared.compute_capabilities
    named = None if given is None else tuple(map(compute_capability, _listed(given)))
    if declared.hardware_compatible:
        if header.backend != "tensorrt" or named:
            raise SettingsError(
                "hardware_compatible was given with compute_capabilities, or for TensorRT-RTX",
                "a TensorRT plan, and one of the two: such a plan runs on every GPU from "
                f"compute capability {_OLDEST_COMPATIBLE}",
                "leave one of them out",
            )
        return {"compute_capability_min": _OLDEST_COMPATIBLE}
    if header.hardware_compatible and not named:
        return {"compute_capability_min": _OLDEST_COMPATIBLE}
    if named and header.compute_capabilities and set(named) != set(header.compute_capabilities):
        raise _contradiction("compute_capabilities", named, header.compute_capabilities)
    found = named or header.compute_capabilities
    return {"compute_capabilities": list(found)} if found else {}


def _listed(value: Sequence[str] | str) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _versions(header: PlanHeader, declared: DeclaredRequirements) -> dict[str, Any]:
    """Require the plan's own version, unless header or user make it version compatible."""
    if declared.lean_runtime not in (None, *LEAN_RUNTIMES):
        raise SettingsError(
            f"lean_runtime is {declared.lean_runtime!r}",
            f"one of {', '.join(map(repr, LEAN_RUNTIMES))}",
            "correct lean_runtime, or leave it out",
        )
    if header.version_compatible and declared.version_compatible is False:
        raise _contradiction("version_compatible", False, True)
    compatible = bool(header.version_compatible or declared.version_compatible)
    if not compatible:
        if declared.lean_runtime:
            raise SettingsError(
                f"lean_runtime is {declared.lean_runtime!r}, and the plan is not "
                "version compatible",
                "version_compatible=True together with it",
                "give both, or neither",
            )
        return {"version_compatible": False, "lean_runtime": None, "host_code": False}
    if header.lean_runtime == "inside" and declared.lean_runtime == "outside":
        raise _contradiction("lean_runtime", "outside", "inside")
    lean = declared.lean_runtime or header.lean_runtime
    if lean is None:
        raise SettingsError(
            "the plan's header does not have the location of its lean runtime",
            "lean_runtime='inside', the builder's default, or 'outside'",
            "give lean_runtime",
        )
    return {"version_compatible": True, "lean_runtime": lean, "host_code": True}


def _contradiction(name: str, declared: Any, header: Any) -> SettingsError:
    return SettingsError(
        f"{name} is {declared!r}, and the plan's header has {header!r}",
        "what the plan was built with",
        f"leave {name} out: the header has it",
    )
