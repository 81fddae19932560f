"""Which TensorRT runs a TensorRT engine: the versions of three libraries, and a fourth beside them.

`tensorrt` is the whole library. `tensorrt_lean` runs engines that were built as version compatible.
`tensorrt_dispatch` runs such engines too, by handing them to a lean runtime: the one inside the
engine, or, where it was left out, a library file of the engine's own release. `tensorrt` can hand
engines on in the same way.

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


# Major version -> the newer one that runs its version-compatible engines as well.
_NEXT_MAJOR = {8: 10, 9: 10, 10: 11}

_ALL_PARTS = 4
_RELEASE_PARTS = 3


def runtime_for(requires: Mapping[str, Any], facts: Machine) -> str | Verdict:
    """The library that runs an engine of the backend "tensorrt" there, or no with the reason.

    Args:
        requires: What the engine's manifest entry says.
        facts: The machine. Where it tells the version of none of the three libraries, every engine
            fits; where it tells that of one, the others are taken not to be there.
    """
    built = requires.get("tensorrt")
    if not isinstance(built, str) or len(numbers(built)) < 2:
        return Verdict.no(
            "requirement_missing", "it does not say which TensorRT built it", "build it again"
        )
    compatible = requires.get("version_compatible") is True
    known = {name: facts.versions[name] for name in RUNTIMES if name in facts.versions}
    there = {name: version for name, version in known.items() if version}
    if known and not there:
        return Verdict.no(
            "library_missing",
            f"neither {', '.join(RUNTIMES[:-1])} nor {RUNTIMES[-1]} is installed",
            _get(built) if compatible else f"pip install tensorrt=={built}",
        )
    if not known:
        there = dict.fromkeys(RUNTIMES, "")
    if not compatible:
        return _exact(built, there)
    inside = requires.get("lean_runtime") == "inside"
    return _with_lean_inside(built, there) if inside else _with_lean_outside(built, there, facts)


def _exact(built: str, there: Mapping[str, str]) -> str | Verdict:
    found = there.get("tensorrt")
    if found is not None and same_release(built, found, _ALL_PARTS):
        return "tensorrt"
    return Verdict.no(
        "library_version",
        f"it is not version compatible: built by tensorrt {built}, and {_list(there)} is there",
        f"install tensorrt {built}, or build it again with what is there",
    )


def _with_lean_inside(built: str, there: Mapping[str, str]) -> str | Verdict:
    fitting = next(_that_load(built, there), None)
    return fitting or _no_major(built, there)


def _with_lean_outside(built: str, there: Mapping[str, str], facts: Machine) -> str | Verdict:
    for name in ("tensorrt", "tensorrt_lean"):  # these are its lean runtime, or contain it
        if name in there and same_release(built, there[name], _RELEASE_PARTS):
            return name
    loaders = [name for name in _that_load(built, there) if name != "tensorrt_lean"]
    if not loaders:
        if "tensorrt_lean" in there and len(there) == 1:
            return Verdict.no(
                "library_version",
                f"it was built by tensorrt {built} without a lean runtime inside, and "
                f"{_list(there)} runs such engines of its own release alone",
                f"install tensorrt_lean {built}, or {_get(built)}",
            )
        return _no_major(built, there)
    library = "" if facts.lean_library is None else facts.lean_library(built)
    return library if isinstance(library, Verdict) else loaders[0]


def _that_load(built: str, there: Mapping[str, str]) -> Iterator[str]:
    """Those whose version may load a version-compatible engine, by its own code or a lean one's."""
    for name, found in there.items():
        major = numbers(found)[:1]
        same = not major or major == numbers(built)[:1]
        if (same and at_least(built, found)) or major[:1] == [_next(built)]:
            yield name


def _next(built: str) -> int | None:
    return _NEXT_MAJOR.get(numbers(built)[0])


def _no_major(built: str, there: Mapping[str, str]) -> Verdict:
    later = f", or TensorRT {_next(built)}" if _next(built) else ""
    return Verdict.no(
        "library_version",
        f"it was built by tensorrt {built}, needs that or a newer TensorRT "
        f"{numbers(built)[0]}{later}, and {_list(there)} is there",
        _get(built),
    )


def _list(there: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {version}".strip() for name, version in there.items())


def _get(built: str) -> str:
    major = numbers(built)[0]
    return f"pip install 'tensorrt-dispatch-cu13<{(_next(built) or major) + 1}'"
