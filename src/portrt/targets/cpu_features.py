"""Instruction sets of CPUs, for engines that are machine code for one of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from portrt.verdict import YES, Verdict

_CPUINFO = Path("/proc/cpuinfo")
# Names in the "flags" of x86 and the "Features" of ARM that compilers may generate code for; the
# others name properties of the kernel or of virtual machines.
_PREFIXES = ("sse", "ssse", "avx", "amx_", "bmi", "sha", "sve", "sm3", "sm4", "asimd", "aes")
_NAMES = {
    *("fma", "fma4", "f16c", "popcnt", "abm", "movbe", "pclmulqdq", "vpclmulqdq", "vaes", "gfni"),
    *("adx", "xop", "tbm", "lzcnt", "fp", "fphp", "pmull", "crc32", "atomics", "jscvt", "fcma"),
    *("lrcpc", "dcpop", "flagm", "flagm2", "frint", "i8mm", "bf16", "ilrcpc", "sb", "paca", "pacg"),
    *("f32mm", "f64mm", "sme", "sme2"),
}
_SHOWN = 4


def features_verdict(wanted: Iterable[str], found: frozenset[str]) -> Verdict:
    """Return whether a CPU has the instruction sets that an engine was compiled for."""
    missing = sorted(set(map(str, wanted)) - found)
    if not missing:
        return YES
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return Verdict.no(
        "wrong_platform",
        f"built for a CPU with {', '.join(missing[:_SHOWN])}{more}, which this one lacks",
        "build it again on a machine with this CPU: portrt add-engine, or rebuild='missing'",
    )


@lru_cache
def cpu_features() -> frozenset[str] | None:
    """Return the instruction sets of this CPU; None where the system does not list them."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    listed = [set(line.partition(":")[2].split()) for line in lines if _lists_features(line)]
    if not listed:
        return None
    every = set.intersection(*listed)  # a process may run on any core
    return frozenset(name for name in every if name in _NAMES or name.startswith(_PREFIXES))


def _lists_features(line: str) -> bool:
    return line.partition(":")[0].strip() in ("flags", "Features")
