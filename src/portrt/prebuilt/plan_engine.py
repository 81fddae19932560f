"""An engine that is given as bytes: what its header, and the user, say that it needs."""

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
from portrt.format.plan_header import PlanHeader, read_plan_header

LEAN_RUNTIMES = ("inside", "outside")

# Beside those that an engine can be asked to have.
_QUANTIZED = ("int8", "fp8")

# What "hardware compatible" means. Source: NvInfer.h, HardwareCompatibilityLevel::kAMPERE_PLUS.
_OLDEST_COMPATIBLE = "8.0"


@dataclass(frozen=True)
class DeclaredRequirements:
    """What the user says of an engine, because its header may not.

    Attributes:
        compute_capabilities: GPUs that it was built for.
        hardware_compatible: It runs on other GPUs than the one that it was built on.
        version_compatible: Later versions of TensorRT can run it.
        lean_runtime: "inside" or "outside".
        precision: What it computes in, where that is lower than the types of its outputs.
    """

    compute_capabilities: Sequence[str] | str | None = None
    hardware_compatible: bool = False
    version_compatible: bool | None = None
    lean_runtime: str | None = None
    precision: Any = None


def plan_bytes_of(plan: bytes | bytearray | memoryview | torch.Tensor | str | Any) -> bytes:
    """The bytes of an engine.

    Args:
        plan: The bytes, a uint8 tensor of them, or the path of a file.

    Raises:
        LoadError: The file cannot be read.
        SettingsError: It is none of these.
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
        "give what the builder's build_serialized_network made, or the file that it is in",
    )


def adopted_engine(
    data: bytes, said: DeclaredRequirements, inputs: Sequence[str], outputs: Sequence[str]
) -> Engine:
    """The engine, with its entry for the manifest.

    Args:
        data: The plan.
        said: What the header may not tell.
        inputs: Names of its input bindings, in the order of the block's inputs.
        outputs: Likewise.

    Raises:
        PackageError: The bytes are no plan.
        SettingsError: The user says what cannot be, or what the header contradicts.
    """
    header = read_plan_header(data, len(data))
    requires: dict[str, Any] = {"device": ["cuda"], header.backend: header.version}
    requires |= _gpus(header, said)
    if header.backend == "tensorrt":
        requires |= _versions(header, said)
    elif said.version_compatible or said.lean_runtime:
        raise SettingsError(
            "the plan is of TensorRT-RTX, and was said to be version compatible",
            "nothing said: TensorRT-RTX runs engines of its own release alone",
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
            **_precision(said.precision),
        },
        requires=requires,
    )


def _precision(value: Any) -> dict[str, str]:
    name = value if value in _QUANTIZED else precision_name(value)
    return {} if name is None else {"precision": name}


def _gpus(header: PlanHeader, said: DeclaredRequirements) -> dict[str, Any]:
    given = said.compute_capabilities
    told = None if given is None else tuple(map(compute_capability, _listed(given)))
    if said.hardware_compatible:
        if header.backend != "tensorrt" or told:
            raise SettingsError(
                "hardware_compatible was given with compute_capabilities, or for TensorRT-RTX",
                "a TensorRT plan, and one of the two: such a plan runs on every GPU from "
                f"compute capability {_OLDEST_COMPATIBLE}",
                "leave one of them out",
            )
        return {"compute_capability_min": _OLDEST_COMPATIBLE}
    if header.hardware_compatible and not told:
        return {"compute_capability_min": _OLDEST_COMPATIBLE}
    if told and header.compute_capabilities and set(told) != set(header.compute_capabilities):
        raise _contradiction("compute_capabilities", told, header.compute_capabilities)
    found = told or header.compute_capabilities
    return {"compute_capabilities": list(found)} if found else {}


def _listed(value: Sequence[str] | str) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _versions(header: PlanHeader, said: DeclaredRequirements) -> dict[str, Any]:
    """What is said nowhere is taken for what the builder does unasked: not version compatible."""
    if said.lean_runtime not in (None, *LEAN_RUNTIMES):
        raise SettingsError(
            f"lean_runtime is {said.lean_runtime!r}",
            f"one of {', '.join(map(repr, LEAN_RUNTIMES))}",
            "say where the lean runtime of the plan is, or leave it out",
        )
    if header.version_compatible and said.version_compatible is False:
        raise _contradiction("version_compatible", False, True)
    compatible = bool(header.version_compatible or said.version_compatible)
    if not compatible:
        if said.lean_runtime:
            raise SettingsError(
                f"lean_runtime is {said.lean_runtime!r}, and the plan is not version compatible",
                "version_compatible=True beside it",
                "give both, or neither",
            )
        return {"version_compatible": False, "lean_runtime": None, "host_code": False}
    if header.lean_runtime == "inside" and said.lean_runtime == "outside":
        raise _contradiction("lean_runtime", "outside", "inside")
    lean = said.lean_runtime or header.lean_runtime
    if lean is None:
        raise SettingsError(
            "the plan's header does not tell where its lean runtime is",
            "lean_runtime='inside', as the builder does unasked, or 'outside'",
            "give lean_runtime",
        )
    return {"version_compatible": True, "lean_runtime": lean, "host_code": True}


def _contradiction(name: str, said: Any, header: Any) -> SettingsError:
    return SettingsError(
        f"{name} is {said!r}, and the plan's header says {header!r}",
        "what the plan was built with",
        f"leave {name} out: the header tells it",
    )
