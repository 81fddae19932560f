"""Selection of an engine: stored engines are checked in order; the first accepted one runs."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from portrt.engines import registry
from portrt.engines.base import OpenOptions, Session
from portrt.errors import (
    BackendUnavailableError,
    EngineError,
    NoUsableEngineError,
    OutOfProfileError,
    PackageError,
)
from portrt.format.manifest import EngineSpec
from portrt.runtime.choice import EAGER as EAGER
from portrt.runtime.choice import engine_verdict, source_verdict
from portrt.runtime.policy import Policy
from portrt.runtime.profile_fallback import within_profiles
from portrt.runtime.stored_block import StoredBlock
from portrt.runtime.trust import trusts_host_code
from portrt.targets import backends
from portrt.targets.backends import REBUILDER
from portrt.targets.requirements import UNKNOWN_BACKEND
from portrt.verdict import YES, Verdict

logger = logging.getLogger(__name__)

# Keys: index of the engine's blob, and device; rebuilt engines have negative indices.
Sessions = MutableMapping[tuple[int, torch.device], Session]

NO_REBUILDER = Verdict.no(
    "no_builder",
    "no builder is installed here",
    "install portrt with its compiler, or use rebuild='never'",
)


class FallbackWarning(UserWarning):
    """A block runs in PyTorch because no stored engine can run on this machine."""


@dataclass(frozen=True)
class Selection:
    """The session that runs a block, and the verdicts that led to it.

    Attributes:
        session: Session of the engine or of the source.
        name: Backend of the engine, or "eager".
        verdicts: (backend, verdict) for each engine that was checked, in order.
    """

    session: Session
    name: str
    verdicts: tuple[tuple[str, Verdict], ...]


def verdict_of(engine: EngineSpec, device: torch.device, policy: Policy) -> Verdict:
    """Return whether an engine may run here on tensors of a device, without opening it."""
    return engine_verdict(engine, policy, device.type, lambda: _on_machine(engine, device))


def _on_machine(engine: EngineSpec, device: torch.device) -> Verdict:
    try:
        runtime = registry.runtime(engine.backend)
    except BackendUnavailableError:
        return UNKNOWN_BACKEND
    return runtime.accepts(engine, device)


def select(
    block: StoredBlock,
    device: torch.device,
    policy: Policy,
    sessions: Sessions,
) -> Selection:
    """Open the first engine that this machine accepts, or else the source.

    With select="measured" in the policy all that it accepts are opened, and the fastest are kept.

    Args:
        block: Block with its engines.
        device: Device of the inputs.
        policy: Policy with every field set.
        sessions: Sessions that are open already; newly opened ones are added.

    Raises:
        NoUsableEngineError: No engine can run, and the policy or the file has no fallback.
        PackageError: The bytes of an engine do not match the digest in the manifest.
    """
    verdicts: list[tuple[str, Verdict]] = []
    opened: list[tuple[EngineSpec, Session]] = []
    source = _source_for_sizes(block, device, policy, sessions)
    for engine in block.manifest.engines:
        verdict = verdict_of(engine, device, policy)
        if verdict:
            key = (engine.data.index, device)
            session = sessions.get(key) or _open(block, engine, device, policy)
            if policy.check == "first-open" and not isinstance(session, Verdict):
                session = _checked(block, engine, session, device)
            if isinstance(session, Verdict):
                verdict = session
                sessions.pop(key, None)
            else:
                sessions[key] = session
                adopted = bool(engine.build.get("adopted"))
                session = with_graphs(session, policy)
                session = within_profiles(session, block.signature, source, adopted=adopted)
                opened.append((engine, session))
        verdicts.append((engine.backend, verdict))
        if opened and policy.select != "measured":
            break
    if len(opened) > 1:
        return _fastest(block, opened, device, sessions, verdicts)
    if opened:
        engine, session = opened[0]
        logger.info("%s runs as %s%s", block.name, engine.backend, _not_chosen(verdicts[:-1]))
        return Selection(session, engine.backend, tuple(verdicts))
    if policy.rebuild == "missing" and block.has_source:
        rebuilt = _rebuilt(block, device, policy, sessions, verdicts)
        if rebuilt is not None:
            return dataclasses.replace(
                rebuilt, session=within_profiles(rebuilt.session, block.signature, source)
            )
    return _source(block, device, policy, tuple(verdicts), sessions)


def _fastest(
    block: StoredBlock,
    opened: Sequence[tuple[EngineSpec, Session]],
    device: torch.device,
    sessions: Sessions,
    verdicts: Sequence[tuple[str, Verdict]],
) -> Selection:
    """Return what runs the fastest of several engines; the others are closed."""
    from portrt.runtime.measured_choice import fastest  # imports the cache, rarely needed

    session, chosen = fastest(block, opened, device)
    for place, (engine, _) in enumerate(opened):
        if place not in chosen:
            sessions.pop((engine.data.index, device), None)
    return Selection(session, opened[chosen[0]][0].backend, tuple(verdicts))


def _checked(
    block: StoredBlock, engine: EngineSpec, session: Session, device: torch.device
) -> Session | Verdict:
    """Return the session, or a no if the engine's outputs are wrong."""
    from portrt.runtime.first_open import first_open_verdict  # imports the cache, rarely needed

    verdict = first_open_verdict(block, engine, session, device)
    return session if verdict else verdict


def with_graphs(session: Session, policy: Policy) -> Session:
    """Return a session that replays CUDA graphs if the policy requires it and the engine can."""
    if not policy.cuda_graphs or not session.supports_graphs:
        return session
    return session.graphed(policy.cuda_graphs)


def rebuilder() -> Any | None:
    """Return the module that builds engines from sources; None if no compiler is installed."""
    try:
        return import_module(REBUILDER)
    except ModuleNotFoundError as err:
        if err.name is None or not f"{REBUILDER}.".startswith(f"{err.name}."):
            raise
        return None


def _rebuilt(
    block: StoredBlock,
    device: torch.device,
    policy: Policy,
    sessions: Sessions,
    verdicts: list[tuple[str, Verdict]],
) -> Selection | None:
    """Build an engine from the source, or return None; appends each attempt to `verdicts`."""
    for index, name in enumerate(backends.names(), 1):  # one may be open under another policy
        session = sessions.get((-index, device))
        if session is not None and (policy.engines is None or name in policy.engines):
            session = with_graphs(session, policy)
            return Selection(session, name, (*verdicts, (f"{name}, rebuilt", YES)))
    builders = rebuilder()
    if builders is None:
        verdicts.append(("rebuild", NO_REBUILDER))
        return None
    found, tried = builders.rebuild(block, device, policy)
    verdicts += tried
    if found is None:
        return None
    spec = found.spec
    label = f"{spec.backend}, rebuilt"
    try:
        session = block.open_engine(spec, device, _options(spec, policy), found.bytes_of)
    except EngineError as err:
        verdicts.append((label, Verdict.no("open_failed", err.happened, err.remedy)))
        return None
    sessions[spec.data.index, device] = session
    session = with_graphs(session, policy)
    logger.info("%s runs as %s, rebuilt%s", block.name, spec.backend, _not_chosen(verdicts))
    verdicts.append((label, YES))
    return Selection(session, spec.backend, tuple(verdicts))


def _open(
    block: StoredBlock, engine: EngineSpec, device: torch.device, policy: Policy
) -> Session | Verdict:
    """Open an engine; return the session, or a no with the reason."""
    try:
        return block.open_engine(engine, device, _options(engine, policy))
    except PackageError:
        raise
    except EngineError as err:
        return Verdict.no("open_failed", f"it could not be opened: {err.happened}", err.remedy)
    except Exception as err:  # any failure of a backend leaves the other engines usable
        logger.exception("opening the %s engine of %s failed", engine.backend, block.name)
        return Verdict.no("open_failed", f"it could not be opened: {type(err).__name__}: {err}")


def _options(engine: EngineSpec, policy: Policy) -> OpenOptions:
    return OpenOptions(trusted_host_code=trusts_host_code(engine, policy))


def _source(
    block: StoredBlock,
    device: torch.device,
    policy: Policy,
    verdicts: tuple[tuple[str, Verdict], ...],
    sessions: Sessions,
) -> Selection:
    lines = "".join(f"\n    {name}: {item}" for name, item in verdicts) or " none is stored"
    verdict = source_verdict(block.has_source, policy.fallback)
    if not verdict:
        raise NoUsableEngineError(
            f"no engine of {block.name} can run here on {device.type} tensors, "
            f"and {verdict.reason}:{lines}",
            "a stored engine that this machine accepts",
            "compile with an engine for this machine, or run with fallback='eager'",
        )
    why = f"no stored engine can run here on {device.type} tensors.{lines}"
    session = with_graphs(_open_source(block, device, sessions, why), policy)
    logger.info("%s runs as %s%s", block.name, EAGER, _not_chosen(verdicts))
    return Selection(session, EAGER, verdicts)


def _open_source(block: StoredBlock, device: torch.device, sessions: Sessions, why: str) -> Session:
    """Return the source's session; warn with the reason when it is first opened."""
    source = block.manifest.source
    assert source is not None
    key = (source.index, device)
    if key not in sessions:
        session = block.source_session(device)
        warnings.warn(
            f"{block.name} runs in PyTorch: {why}",
            FallbackWarning,
            stacklevel=2,
        )
        sessions[key] = session  # last: if the warning is an error, every call raises it
    return sessions[key]


def _source_for_sizes(
    block: StoredBlock,
    device: torch.device,
    policy: Policy,
    sessions: Sessions,
) -> Callable[[OutOfProfileError], Session] | None:
    """Return a function that opens the source for sizes in no profile; None if it must not run."""
    if not source_verdict(block.has_source, policy.fallback):
        return None

    def opened(err: OutOfProfileError) -> Session:
        why = f"{err.happened}; it takes {err.expected}\n    Calls of such sizes run in the engine."
        return with_graphs(_open_source(block, device, sessions, why), policy)

    return opened


def _not_chosen(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    return "".join(f"; {name}: {verdict}" for name, verdict in verdicts)
