"""trust: leave for engines to bring their own code for the CPU, which loading them runs.

A TensorRT plan that later versions can run carries a small TensorRT of its own. Nobody can look
into that code, so such an engine is refused unless somebody vouches for it, where the program runs:
`policy(trust="host-code")`, `load(..., trust="host-code")` or PORTRT_TRUST. What a file says counts
for nothing here, except that its engine needs the leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portrt.runtime.policy import Policy
from portrt.targets.trust import HOST_CODE, NOT_TRUSTED

# Nothing more at the top: `import torch` imports the package that this module is in.
from portrt.verdict import Verdict

if TYPE_CHECKING:
    from portrt.format.manifest import EngineSpec

# SHA-256 of engines that were vouched for in this process, by `load` or because they were built in
# it. By content, so that it holds for copies of a program, and goes into no file.
_trusted: set[str] = set()


def mark_trusted(sha256: str) -> None:
    """Let the engine with this digest bring code, in this process, unless a policy forbids it."""
    _trusted.add(sha256)


def is_trusted(what: str, sha256: str, policy: Policy) -> bool:
    """Whether an engine may do something that needs trust, whatever the manifest states of it.

    Args:
        what: "host-code".
        sha256: The engine's digest, which was checked.
        policy: The policy in force.
    """
    if policy.trust is not None:
        return what in policy.trust
    return sha256 in _trusted


def host_code_verdict(engine: EngineSpec, policy: Policy, verdict: Verdict) -> Verdict:
    """The verdict on an engine, or no where it would be yes, but for the trust it lacks."""
    if not (verdict and engine.requires.get("host_code")):
        return verdict
    return verdict if is_trusted(HOST_CODE, engine.data.sha256, policy) else NOT_TRUSTED
