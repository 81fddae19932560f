"""The one rule for "may this stored engine run there?": what it needs against facts. No torch here.

The backends apply it to the machine that they are on, `portrt check` to any machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from portrt.artifacts import YES, Verdict

# Backends that this version builds engines for, and cannot run yet.
NOT_RUN_YET = frozenset({"tensorrt_rtx"})

# Backend -> the library that runs its engines; also the key of the version in `requires`.
LIBRARIES = {"tensorrt_rtx": "tensorrt_rtx", "onnxruntime": "onnxruntime"}

# Libraries that run engines of their own release alone.
_EXACT = frozenset({"tensorrt_rtx"})

INSTALL = {
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13",
    "onnxruntime": "pip install onnxruntime",
}


@dataclass(frozen=True)
class Facts:
    """A machine. What is None, or not among `versions`, is not known and holds nothing back.

    Attributes:
        os: "linux", "windows" or "darwin".
        arch: "x86_64", "aarch64" and so on.
        compute_capability: Of its NVIDIA GPU, such as "8.9"; None for a machine without one.
        no_gpu: Why there is no GPU to use, for messages.
        versions: Library -> version; "" for a library that is not installed.
    """

    os: str | None = None
    arch: str | None = None
    compute_capability: str | None = None
    no_gpu: str = "there is no NVIDIA GPU"
    versions: Mapping[str, str] = field(default_factory=dict)


def judge(backend: str, requires: Mapping[str, Any], facts: Facts, device: str) -> Verdict:
    """Whether an engine may run on a machine, on tensors of a device type.

    Args:
        backend: Name of the engine's backend.
        requires: What its manifest entry says, checked: "device" is there.
        facts: The machine.
        device: "cpu" or "cuda": where the inputs are.
    """
    if backend not in LIBRARIES:
        return Verdict(
            False, "this version of portrt does not know it", "install a newer version of portrt"
        )
    if device not in requires["device"]:
        wanted = " or ".join(map(str, requires["device"]))
        return Verdict(False, f"it takes {wanted} tensors, the inputs are on {device}")
    verdicts = (
        _platform(requires, facts),
        _gpu(requires, facts) if device == "cuda" else YES,
        _library(LIBRARIES[backend], requires, facts),
    )
    for verdict in verdicts:
        if not verdict:
            return verdict
    if backend in NOT_RUN_YET:
        return Verdict(
            False,
            "it fits, but this version of portrt builds these engines, and runs none yet",
            "install a newer version of portrt",
        )
    return YES


def _platform(requires: Mapping[str, Any], facts: Facts) -> Verdict:
    for key, found in (("os", facts.os), ("arch", facts.arch)):
        wanted = requires.get(key)
        if wanted and found is not None and found not in wanted:
            return Verdict(
                False,
                f"built for {', '.join(map(str, wanted))}, not {found}",
                f"compile on a machine with {key}={found}",
            )
    return YES


def _gpu(requires: Mapping[str, Any], facts: Facts) -> Verdict:
    found = facts.compute_capability
    if found is None:
        return Verdict(False, facts.no_gpu, "use a machine with such a GPU")
    wanted = requires.get("compute_capabilities")
    if wanted and found not in wanted:
        return Verdict(
            False,
            f"built for compute capability {', '.join(map(str, wanted))}, the GPU has {found}",
            f"portrt add-engine --target {found}, if its builder knows that GPU",
        )
    return YES


def _library(library: str, requires: Mapping[str, Any], facts: Facts) -> Verdict:
    found = facts.versions.get(library)
    if found is None:
        return YES
    if not found:
        return Verdict(False, f"{library} is not installed", INSTALL[library])
    wanted = requires.get(library)
    if not isinstance(wanted, str):
        return YES
    if library in _EXACT:
        return YES if _same_release(wanted, found) else _other_release(library, wanted, found)
    if _at_least(wanted, found):
        return YES
    return Verdict(
        False, f"needs {library} {wanted} or newer, and {found} is there", f"update {library}"
    )


def _other_release(library: str, wanted: str, found: str) -> Verdict:
    return Verdict(
        False,
        f"built by {library} {wanted}, and {found} is there",
        f"install {library} {wanted}, or portrt add-engine where {found} is installed",
    )


def _numbers(version: str) -> list[int]:
    """The leading numbers: [1, 7, 1, 116] of "1.7.1.116", [1, 32] of "1.32.dev5"."""
    found: list[int] = []
    for part in version.split("."):
        match = re.match(r"\d+", part)
        if match is None:
            break
        found.append(int(match[0]))
        if match[0] != part:
            break
    return found


def _same_release(built: str, found: str) -> bool:
    """Major, minor and patch, as far as both say; the fourth number is a build of the same release.

    Source: TensorRT-RTX documentation, "Engine compatibility": engines are not compatible between
    releases. Windows and Linux may share one ("CPU-only AOT and TensorRT-RTX engines").
    """
    one, other = _numbers(built)[:3], _numbers(found)[:3]
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _at_least(oldest: str, found: str) -> bool:
    """Compared as far as `found` says: 1.23 is not older than 1.23.2."""
    numbers = _numbers(found)
    return numbers >= _numbers(oldest)[: len(numbers)]


def known_libraries() -> Sequence[str]:
    """Libraries of which a machine may be said to have a version."""
    return tuple(dict.fromkeys(LIBRARIES.values()))
