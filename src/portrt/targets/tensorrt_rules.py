"""Compatibility of TensorRT engines with the installed TensorRT libraries.

`tensorrt` is the full library. `tensorrt_lean` runs version-compatible engines.
`tensorrt_dispatch` runs them as well, by delegating to a lean runtime: the one inside the engine,
or, if it was excluded, a library file of the engine's own release. `tensorrt` can delegate in the
same way.

Sources: NVIDIA TensorRT documentation. Support matrix 11.4.1, "Engine portability": 8 runs on 10,
10 on 11, and no other combination across major versions. "Version compatibility" of 10.16: 9 runs
on 10; engines of a newer version do not run on an older one. "Support policies": without version
compatibility major, minor, patch and build must match. NvInferRuntime.h, `IRuntime::loadRuntime`:
the lean library is of the version that built the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from portrt.targets.backends import RUNTIMES
from portrt.targets.versions import at_least, numbers, same_release
from portrt.verdict import Verdict

if TYPE_CHECKING:
    from portrt.targets.machine import Machine


# Major version -> the newer major version that also runs its version-compatible engines.
_NEXT_MAJOR = {8: 10, 9: 10, 10: 11}

_ALL_PARTS = 4
_RELEASE_PARTS = 3


def runtime_for(requires: Mapping[str, Any], machine: Machine) -> str | Verdict:
    """Return the library that runs a "tensorrt" engine on a machine, or a no with the reason.

    Args:
        requires: `requires` of the engine's manifest entry.
        machine: The machine. If it states the version of none of the three libraries, every engine
            is accepted; if it states that of one, the others are assumed not to be installed.
    """
    built = requires.get("tensorrt")
    if not isinstance(built, str) or len(numbers(built)) < 2:
        return Verdict.no(
            "requirement_missing", "it does not state which TensorRT built it", "build it again"
        )
    compatible = requires.get("version_compatible") is True
    known = {name: machine.versions[name] for name in RUNTIMES if name in machine.versions}
    installed = {name: version for name, version in known.items() if version}
    if known and not installed:
        return Verdict.no(
            "library_missing",
            f"neither {', '.join(RUNTIMES[:-1])} nor {RUNTIMES[-1]} is installed",
            _get(built) if compatible else f"pip install tensorrt=={built}",
        )
    if not known:
        installed = dict.fromkeys(RUNTIMES, "")
    if not compatible:
        return _exact(built, installed)
    if requires.get("lean_runtime") == "inside":
        return _with_lean_inside(built, installed)
    return _with_lean_outside(built, installed, machine)


def _exact(built: str, installed: Mapping[str, str]) -> str | Verdict:
    found = installed.get("tensorrt")
    if found is not None and same_release(built, found, _ALL_PARTS):
        return "tensorrt"
    return Verdict.no(
        "library_version",
        f"it is not version compatible: built by tensorrt {built}, and {_list(installed)} is "
        "installed",
        f"install tensorrt {built}, or build it again with the installed version",
    )


def _with_lean_inside(built: str, installed: Mapping[str, str]) -> str | Verdict:
    loader = next(_that_load(built, installed), None)
    return loader or _no_major(built, installed)


def _with_lean_outside(built: str, installed: Mapping[str, str], machine: Machine) -> str | Verdict:
    for name in ("tensorrt", "tensorrt_lean"):  # these are its lean runtime, or contain it
        if name in installed and same_release(built, installed[name], _RELEASE_PARTS):
            return name
    loaders = [name for name in _that_load(built, installed) if name != "tensorrt_lean"]
    if not loaders:
        if "tensorrt_lean" in installed and len(installed) == 1:
            return Verdict.no(
                "library_version",
                f"it was built by tensorrt {built} without a lean runtime inside, and "
                f"{_list(installed)} runs such engines of its own release only",
                f"install tensorrt_lean {built}, or {_get(built)}",
            )
        return _no_major(built, installed)
    library = "" if machine.lean_library is None else machine.lean_library(built)
    return library if isinstance(library, Verdict) else loaders[0]


def _that_load(built: str, installed: Mapping[str, str]) -> Iterator[str]:
    """Yield the libraries that can load a version-compatible engine, directly or by delegating."""
    for name, found in installed.items():
        major = numbers(found)[:1]
        same = not major or major == numbers(built)[:1]
        if (same and at_least(built, found)) or major[:1] == [_next(built)]:
            yield name


def _next(built: str) -> int | None:
    return _NEXT_MAJOR.get(numbers(built)[0])


def _no_major(built: str, installed: Mapping[str, str]) -> Verdict:
    later = f", or TensorRT {_next(built)}" if _next(built) else ""
    return Verdict.no(
        "library_version",
        f"it was built by tensorrt {built}, needs that or a newer TensorRT "
        f"{numbers(built)[0]}{later}, and {_list(installed)} is installed",
        _get(built),
    )


def _list(installed: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {version}".strip() for name, version in installed.items())


def _get(built: str) -> str:
    major = numbers(built)[0]
    return f"pip install 'tensorrt-dispatch-cu13<{(_next(built) or major) + 1}'"
