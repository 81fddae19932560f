"""The one rule for "may this stored engine run there?": what it needs against facts. No torch here.

The backends apply it to the machine that they are on, `portrt check` to any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portrt.targets.backends import BackendInfo, find
from portrt.targets.machine import Machine
from portrt.targets.tensorrt_rules import runtime_for
from portrt.targets.versions import at_least, numbers, same_release
from portrt.verdict import YES, Verdict

UNKNOWN_BACKEND = Verdict.no(
    "unknown_backend",
    "this version of portrt does not know it",
    "install a newer version of portrt, or the package that adds this backend",
)

# Version rule -> how many numbers of a version must be equal.
_PARTS = {"same_release": 3, "exact": 99}


def judge(backend: str, requires: Mapping[str, Any], facts: Machine, device: str) -> Verdict:
    """Whether an engine may run on a machine, on tensors of a device type.

    Args:
        backend: Name of the engine's backend.
        requires: What its manifest entry says, checked: "device" is there.
        facts: The machine.
        device: "cpu" or "cuda": where the inputs are.
    """
    row = find(backend)
    if row is None:
        return UNKNOWN_BACKEND
    verdicts = (
        device_verdict(requires, device),
        _platform(requires, facts),
        _gpu(backend, requires, facts) if device == "cuda" else YES,
        _library(row, requires, facts),
    )
    return next((verdict for verdict in verdicts if not verdict), YES)


def device_verdict(requires: Mapping[str, Any], device: str) -> Verdict:
    """Whether an engine takes tensors of a device type."""
    if device in requires["device"]:
        return YES
    wanted = " or ".join(map(str, requires["device"]))
    return Verdict.no("wrong_device", f"it takes {wanted} tensors, the inputs are on {device}")


def _platform(requires: Mapping[str, Any], facts: Machine) -> Verdict:
    for key, found in (("os", facts.os), ("arch", facts.arch)):
        wanted = requires.get(key)
        if wanted and found is not None and found not in wanted:
            return Verdict.no(
                "wrong_platform",
                f"built for {', '.join(map(str, wanted))}, not {found}",
                f"compile on a machine with {key}={found}",
            )
    return YES


def _gpu(backend: str, requires: Mapping[str, Any], facts: Machine) -> Verdict:
    found = facts.compute_capability
    if found is None:
        return Verdict.no("no_gpu", facts.gpu_reason, "use a machine with such a GPU")
    wanted = requires.get("compute_capabilities")
    if wanted and found not in wanted:
        return Verdict.no(
            "wrong_gpu",
            f"built for compute capability {', '.join(map(str, wanted))}, the GPU has {found}",
            _remedy_for_gpu(backend, found),
        )
    least = requires.get("compute_capability_min")
    if least is not None and not at_least(str(least), found):
        return Verdict.no(
            "wrong_gpu",
            f"built for compute capability {least} or newer, the GPU has {found}",
            "use a machine with a newer GPU",
        )
    return _driver(requires, facts)


def _remedy_for_gpu(backend: str, capability: str) -> str:
    """Source: TensorRT-RTX documentation, "Support matrix": it has no engines for data centers."""
    if backend == "tensorrt_rtx" and capability.partition(".")[0] in ("9", "10"):
        return f"portrt add-engine --engine tensorrt: TensorRT-RTX builds none for {capability}"
    return f"portrt add-engine --target {capability}, if its builder knows that GPU"


def _driver(requires: Mapping[str, Any], facts: Machine) -> Verdict:
    """Whether the driver knows the CUDA that an engine was built with.

    Source: CUDA compatibility guide, "Minor version compatibility": a driver runs what was built
    with any CUDA of its own major version, or of an older one.
    """
    wanted, found = requires.get("cuda"), facts.cuda
    if not isinstance(wanted, str) or found is None:
        return YES
    if numbers(found)[:1] >= numbers(wanted)[:1]:
        return YES
    return Verdict.no(
        "driver_too_old",
        f"the GPU's driver is too old: it knows CUDA {found}, the engine was built with CUDA "
        f"{wanted}",
        "update the driver",
    )


def _library(row: BackendInfo, requires: Mapping[str, Any], facts: Machine) -> Verdict:
    if row.version_rule == "tensorrt":
        runtime = runtime_for(requires, facts)
        return runtime if isinstance(runtime, Verdict) else YES
    known = {name: facts.versions[name] for name in row.libraries if name in facts.versions}
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
        f"needs {library} {wanted} or newer, and {found} is there",
        f"update {library}",
    )


def _other_release(library: str, wanted: str, found: str) -> Verdict:
    return Verdict.no(
        "library_version",
        f"built by {library} {wanted}, and {found} is there",
        f"install {library} {wanted}, or portrt add-engine where {found} is installed",
    )
