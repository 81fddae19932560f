"""choose: what runs a block, from verdicts and the policy alone. Opens nothing, needs no torch.

`select` follows these rules engine by engine, since opening one may turn its yes into a no;
`report` and the cases in `conformance/` apply them to verdicts that are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from portrt.runtime.policy import Policy
from portrt.runtime.trust import host_code_verdict
from portrt.targets.requirements import device_verdict
from portrt.verdict import YES, Verdict

if TYPE_CHECKING:
    from portrt.format.manifest import EngineSpec

EAGER = "eager"


@dataclass(frozen=True)
class Choice:
    """What runs a block.

    Attributes:
        kind: "engine", a stored one; "rebuild", one that is built from the source; "eager", the
            source in PyTorch; or "error".
        name: Backend of the engine, "eager", or "" for an error.
        verdict: Yes, or for an error why not even the source may run.
    """

    kind: Literal["engine", "rebuild", "eager", "error"]
    name: str
    verdict: Verdict = YES


def engine_verdict(
    engine: EngineSpec, policy: Policy, device: str, on_machine: Callable[[], Verdict]
) -> Verdict:
    """The verdict on a stored engine: of policy, device, machine and trust the first no.

    Args:
        engine: Its manifest entry.
        policy: Complete.
        device: Device type of the inputs.
        on_machine: Whether there is such a backend, and this machine accepts the engine; not called
            where the policy or the device rejects it.
    """
    if policy.engines is not None and engine.backend not in policy.engines:
        allowed = ", ".join(policy.engines) or "no engine"
        return Verdict.no("policy", f"the policy allows {allowed}")
    verdict = device_verdict(engine.requires, device) and on_machine()
    return host_code_verdict(engine, policy, verdict)


def source_verdict(has_source: bool, fallback: str | None) -> Verdict:
    """Whether PyTorch may run the source of a block."""
    if not has_source:
        return Verdict.no(
            "source_missing", "the file has no source", "use a file that was not stripped"
        )
    if fallback == "error":
        return Verdict.no("policy", "the policy forbids PyTorch", "load it with fallback='eager'")
    return YES


def choose(
    engines: Sequence[tuple[str, Verdict]],
    policy: Policy,
    *,
    has_source: bool,
    builders: Callable[[], Iterable[str]] = tuple,
) -> Choice:
    """What runs a block whose engines have these verdicts.

    Args:
        engines: (backend, verdict) of each stored engine, in order of preference.
        policy: Complete.
        has_source: Whether the block's source is in the file.
        builders: Names of the backends that can build and run an engine here and that the policy
            allows, in order of preference; asked where one would be used.
    """
    name = next((name for name, verdict in engines if verdict), None)
    if name is not None:
        return Choice("engine", name)
    if policy.rebuild == "missing" and has_source:
        name = next(iter(builders()), None)
        if name is not None:
            return Choice("rebuild", name)
    verdict = source_verdict(has_source, policy.fallback)
    return Choice("eager", EAGER) if verdict else Choice("error", "", verdict)
