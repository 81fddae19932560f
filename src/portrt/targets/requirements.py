"""Check of a stored engine's requirements against a machine. Imports no torch.

The backends apply it to the current machine, `portrt check` to any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portrt.targets.backends import BackendInfo, find
from portrt.targets.machine import Machine
from portrt.targets.versions import at_least, numbers, same_release
from portrt.verdict import YES, Verdict

UNKNOWN_BACKEND = Verdict.no(
    "unknown_backend",
    "this version of portrt does not know it",
    "install a newer version of portrt, or the package that adds this backend",
)

# Version rule -> number of version components that must be equal.
_PARTS = {"same_release": 3, "exact": 99}


def check_requirements(
    backend: str, requires: Mapping[str, Any], machine: Machine, device: str
) -> Verdict:
    """Return whether an engine can run on a machine, on tensors of a device type.

    Args:
        backend: Name of the engine's backend.
        requires: `requires` of its manifest entry, checked: "device" is present.
        machine: The machine.
        device: Device type of the inputs: "cpu" or "cuda".
    """
    row = find(backend)
    if row is None:
        return UNKNOWN_BACKEND
    verdicts = (
        device_verdict(requires, device),
        _platform(requires, machine),
        _gpu(backend, requires, machine) if device == "cuda" else YES,
        _library(row, requires, machine),
    )
    return next((verdict for verdict in verdicts if not verdict), YES)


def device_verdict(requires: Mapping[str, Any], device: str) -> Verdict:
    """Return whether an engine takes tensors of a device type."""
    if device in requires["device"]:
        return YES
    wanted = " or ".join(map(str, requires["device"]))
    return Verdict.no("wrong_device", f"it takes {wanted} tensors, the inputs are on {device}")


def _platform(requires: Mapping[str, Any], machine: Machine) -> Verdict:
    for key, found in (("os", machine.os), ("arch", machine.arch)):
        wanted = requires.get(key)
        if wanted and found is not None and found not in wanted:
            return Verdict.no(
                "wrong_platform",
                f"built for {', '.join(map(str, wanted))}, not {found}",
                f"compile on a machine with {key}={found}",
            )
    if requires.get("cpu_features") and machine.cpu_features is not None:
        from portrt.targets.cpu_features import features_verdict  # few engines need it

        return features_verdict(requires["cpu_features"], machine.cpu_features)
    return YES


def _gpu(backend: str, requires: Mapping[str, Any], machine: Machine) -> Verdict:
    found = machine.compute_capability
    if found is None:
        return Verdict.no("no_gpu", machine.gpu_reason, "use a machine with such a GPU")
    wanted = requires.get("compute_capabilities")
    if wanted and found not in wanted:
        return Verdict.no(
            "wrong_gpu",
            f"built for compute capability {', '.join(map(str, wanted))}, the GPU has {found}",
            _remedy_for_gpu(backend, found),
        )
    oldest = requires.get("compute_capability_min")
    if oldest is not None and not at_least(str(oldest), found):
        return Verdict.no(
            "wrong_gpu",
            f"built for compute capability {oldest} or newer, the GPU has {found}",
            "use a machine with a newer GPU",
        )
    return _driver(requires, machine)


def _remedy_for_gpu(backend: str, capability: str) -> str:
    """Return the remedy for an engine that was built for other GPUs.

    Source: TensorRT-RTX documentation, "Support matrix": data-center GPUs are not supported.
    """
    if backend == "tensorrt_rtx" and capability.partition(".")[0] in ("9", "10"):
        return f"portrt add-engine --engine tensorrt: TensorRT-RTX builds none for {capability}"
    return f"portrt add-engine --target {capability}, if its builder supports that GPU"


def _driver(requires: Mapping[str, Any], machine: Machine) -> Verdict:
    """Check that the driver supports the CUDA version that an engine was built with.

    Source: CUDA compatibility guide, "Minor version compatibility": a driver runs code that was
    built with any CUDA version of its own major version or an older one.
    """
    wanted, found = requires.get("cuda"), machine.cuda
    if not isinstance(wanted, str) or found is None:
        return YES
    if numbers(found)[:1] >= numbers(wanted)[:1]:
        return YES
    return Verdict.no(
        "driver_too_old",
        f"the GPU's driver is too old: it supports CUDA {found}, the engine was built with CUDA "
        f"{wanted}",
        "update the driver",
    )


def _library(row: BackendInfo, requires: Mapping[str, Any], machine: Machine) -> Verdict:
    if row.version_rule == "tensorrt":
        from portrt.targets.tensorrt_rules import runtime_for

        runtime = runtime_for(requires, machine)
        return runtime if isinstance(runtime, Verdict) else YES
    known = {name: machine.versions[name] for name in row.libraries if name in machine.versions}
    if not known:
        return YES
    library, found = next(((name, v) for name, v in known.items() if v), (row.libraries[0], ""))
    if not found:
        return Verdict.no("library_missing", f"{library} is not installed", row.install)
    wanted = requires.get(row.libraries[0])
    if not isinstance(wanted, str):
        return YES
    if row.version_rule == "at_least":
        return YES if at_least(wanted, found) else _older(library, wanted, found)
    parts = _PARTS[row.version_rule]
    same = same_release(wanted, found, parts)
    return YES if same else _other_release(library, wanted, found)


def _older(library: str, wanted: str, found: str) -> Verdict:
    return Verdict.no(
        "library_version",
        f"needs {library} {wanted} or newer, and {found} is installed",
        f"update {library}",
    )


def _other_release(library: str, wanted: str, found: str) -> Verdict:
    return Verdict.no(
        "library_version",
        f"built by {library} {wanted}, and {found} is installed",
        f"install {library} {wanted}, or portrt add-engine where {found} is installed",
    )
