"""The one rule for "may this stored engine run there?": what it needs against facts. No torch here.

The backends apply it to the machine that they are on, `portrt check` to any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from portrt.artifacts import YES, Verdict
from portrt.package.tensorrt_rule import RUNTIMES, runtime_for
from portrt.package.versions import at_least, numbers, same_release

# Backend -> the libraries of which one runs its engines. The first is also the key of the version
# in `requires`.
LIBRARIES = {
    "tensorrt": RUNTIMES,
    "tensorrt_rtx": ("tensorrt_rtx",),
    "onnxruntime": ("onnxruntime",),
}

# Libraries that run engines of their own release alone.
_EXACT = frozenset({"tensorrt_rtx"})

INSTALL = {
    "tensorrt": "pip install tensorrt",
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
        cuda: The newest CUDA that the GPU's driver knows, such as "12.4".
        lean_library: Version of a TensorRT -> path of a lean runtime library of that release, or
            no with the reason. Asked only where an engine needs one.
    """

    os: str | None = None
    arch: str | None = None
    compute_capability: str | None = None
    no_gpu: str = "there is no NVIDIA GPU"
    versions: Mapping[str, str] = field(default_factory=dict)
    cuda: str | None = None
    lean_library: Callable[[str], str | Verdict] | None = field(default=None, compare=False)


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
        _gpu(backend, requires, facts) if device == "cuda" else YES,
        _library(backend, requires, facts),
    )
    return next((verdict for verdict in verdicts if not verdict), YES)


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


def _gpu(backend: str, requires: Mapping[str, Any], facts: Facts) -> Verdict:
    found = facts.compute_capability
    if found is None:
        return Verdict(False, facts.no_gpu, "use a machine with such a GPU")
    wanted = requires.get("compute_capabilities")
    if wanted and found not in wanted:
        return Verdict(
            False,
            f"built for compute capability {', '.join(map(str, wanted))}, the GPU has {found}",
            _remedy_for_gpu(backend, found),
        )
    least = requires.get("compute_capability_min")
    if least is not None and not at_least(str(least), found):
        return Verdict(
            False,
            f"built for compute capability {least} or newer, the GPU has {found}",
            "use a machine with a newer GPU",
        )
    return _driver(requires, facts)


def _remedy_for_gpu(backend: str, capability: str) -> str:
    """Source: TensorRT-RTX documentation, "Support matrix": it has no engines for data centers."""
    if backend == "tensorrt_rtx" and capability.partition(".")[0] in ("9", "10"):
        return f"portrt add-engine --engine tensorrt: TensorRT-RTX builds none for {capability}"
    return f"portrt add-engine --target {capability}, if its builder knows that GPU"


def _driver(requires: Mapping[str, Any], facts: Facts) -> Verdict:
    """Whether the driver knows the CUDA that an engine was built with.

    Source: CUDA compatibility guide, "Minor version compatibility": a driver runs what was built
    with any CUDA of its own major version, or of an older one.
    """
    wanted, found = requires.get("cuda"), facts.cuda
    if not isinstance(wanted, str) or found is None:
        return YES
    if numbers(found)[:1] >= numbers(wanted)[:1]:
        return YES
    return Verdict(
        False,
        f"the GPU's driver is too old: it knows CUDA {found}, the engine was built with CUDA "
        f"{wanted}",
        "update the driver",
    )


def _library(backend: str, requires: Mapping[str, Any], facts: Facts) -> Verdict:
    if backend == "tensorrt":
        runtime = runtime_for(requires, facts)
        return runtime if isinstance(runtime, Verdict) else YES
    (library,) = LIBRARIES[backend]
    found = facts.versions.get(library)
    if found is None:
        return YES
    if not found:
        return Verdict(False, f"{library} is not installed", INSTALL[library])
    wanted = requires.get(library)
    if not isinstance(wanted, str):
        return YES
    if library in _EXACT:
        # Source: TensorRT-RTX documentation, "Engine compatibility": engines are not compatible
        # between releases. Windows and Linux may share one ("CPU-only AOT and TensorRT-RTX
        # engines"). The fourth number is a build of the same release.
        return YES if same_release(wanted, found) else _other_release(library, wanted, found)
    if at_least(wanted, found):
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


def known_libraries() -> Sequence[str]:
    """Libraries of which a machine may be said to have a version."""
    return tuple(name for names in LIBRARIES.values() for name in names)
