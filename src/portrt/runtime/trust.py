"""Permission for engines that carry host (CPU) code, which runs when they are loaded.

A version-compatible TensorRT engine carries a lean runtime library. That code cannot be inspected,
so such an engine is rejected unless the user permits it on the machine where the program runs:
`policy(trust="host-code")`, `load(..., trust="host-code")` or PORTRT_TRUST. A file can only state
that its engine needs the permission, never grant it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portrt.runtime.policy import Policy
from portrt.targets.trust import HOST_CODE, NOT_TRUSTED

# Nothing more at the top: `import torch` imports the package that this module is in.
from portrt.verdict import Verdict

if TYPE_CHECKING:
    from portrt.format.manifest import EngineSpec

# SHA-256 of the engines trusted in this process: through `load`, or because they were built in it.
# By content, so that it applies to copies of a program as well; never saved to a file.
_trusted: set[str] = set()


def mark_trusted(sha256: str) -> None:
    """Permit host code of the engine with this digest, in this process, unless a policy forbids."""
    _trusted.add(sha256)


def is_trusted(what: str, sha256: str, policy: Policy) -> bool:
    """Return whether an engine has a permission, whatever its manifest states.

    Args:
        what: The permission: "host-code".
        sha256: The engine's digest, which was checked.
        policy: The policy in force.
    """
    if policy.trust is not None:
        return what in policy.trust
    return sha256 in _trusted


def host_code_verdict(engine: EngineSpec, policy: Policy, verdict: Verdict) -> Verdict:
    """Turn a yes into a no for an engine with host code that is not trusted.

    Args:
        engine: Manifest entry of the engine.
        policy: The policy in force.
        verdict: Verdict on the engine without regard to trust.
    """
    if not (verdict and engine.requires.get("host_code")):
        return verdict
    return verdict if trusts_host_code(engine, policy) else NOT_TRUSTED


def trusts_host_code(engine: EngineSpec, policy: Policy) -> bool:
    """Return whether host code of a stored engine, in all its parts, may run."""
    return all(is_trusted(HOST_CODE, blob.sha256, policy) for blob in engine.blobs)
