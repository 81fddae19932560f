"""Choice of what runs a block, from verdicts and the policy alone. Opens nothing, needs no torch.

`select` applies these rules engine by engine, because opening an engine may still reject it;
`report` and the cases in `conformance/` apply them to known verdicts.
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
COMPILED = "inductor"  # the backend that the policy fallback="inductor" compiles sources with


@dataclass(frozen=True)
class Choice:
    """The chosen way to run a block.

    Attributes:
        kind: "engine": a stored engine; "rebuild": an engine built from the source; "compiled": the
            same, as the fallback; "eager": the source in PyTorch; or "error".
        name: Backend of the engine, "eager", or "" for an error.
        verdict: Yes, or for an error the reason why the source may not run either.
    """

    kind: Literal["engine", "rebuild", "compiled", "eager", "error"]
    name: str
    verdict: Verdict = YES


def engine_verdict(
    engine: EngineSpec, policy: Policy, device: str, on_machine: Callable[[], Verdict]
) -> Verdict:
    """Return the first no of policy, device, machine and trust for a stored engine, or yes.

    Args:
        engine: Manifest entry of the engine.
        policy: Policy with every field set.
        device: Device type of the inputs.
        on_machine: Returns whether the backend exists and this machine accepts the engine; not
            called if the policy or the device rejects it.
    """
    if policy.engines is not None and engine.backend not in policy.engines:
        allowed = ", ".join(policy.engines) or "no engine"
        return Verdict.no("policy", f"the policy allows {allowed}")
    verdict = device_verdict(engine.requires, device) and on_machine()
    return in_parts(engine, host_code_verdict(engine, policy, verdict))


def in_parts(engine: EngineSpec, verdict: Verdict) -> Verdict:
    """Return a verdict that, if it is a yes, describes the parts of an engine in parts."""
    return Verdict.yes(engine.in_words) if verdict and engine.parts is not None else verdict


def source_verdict(has_source: bool, fallback: str | None) -> Verdict:
    """Return whether PyTorch may run the source of a block."""
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
    compiles: Callable[[], bool | Verdict] = lambda: False,
) -> Choice:
    """Choose what runs a block whose engines have these verdicts.

    Args:
        engines: (backend, verdict) of each stored engine, in order of preference.
        policy: Policy with every field set.
        has_source: Whether the block's source is in the file.
        builders: Returns the backends that can build and run an engine here and that the policy
            allows, in order of preference; called only if one would be used.
        compiles: Returns whether sources can be compiled here, as a fallback; called only if one
            would be.
    """
    name = next((name for name, verdict in engines if verdict), None)
    if name is not None:
        return Choice("engine", name)
    if policy.rebuild == "missing" and has_source:
        name = next(iter(builders()), None)
        if name is not None:
            return Choice("rebuild", name)
    if policy.fallback == COMPILED and has_source and compiles():
        return Choice("compiled", COMPILED)
    verdict = source_verdict(has_source, policy.fallback)
    return Choice("eager", EAGER) if verdict else Choice("error", "", verdict)
