"""Selection of an engine: stored engines are checked in order; the first accepted one runs."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from portrt.engines import registry
from portrt.engines.base import Session
from portrt.errors import (
    BackendUnavailableError,
    EngineError,
    NoUsableEngineError,
    OutOfProfileError,
    PackageError,
)
from portrt.format.manifest import EngineSpec
from portrt.runtime.choice import COMPILED, engine_verdict, source_verdict
from portrt.runtime.choice import EAGER as EAGER
from portrt.runtime.policy import Policy
from portrt.runtime.selection import FallbackWarning as FallbackWarning
from portrt.runtime.selection import (
    Selection,
    Sessions,
    not_chosen,
    open_options,
    with_graphs,
    within_profiles,
)
from portrt.runtime.stored_block import StoredBlock
from portrt.targets.requirements import UNKNOWN_BACKEND
from portrt.verdict import Verdict

if TYPE_CHECKING:
    from portrt.engines.onnxruntime.cpp_session import CppSession

logger = logging.getLogger(__name__)


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
    all_in_cpp: list[CppSession | None] = []
    source = _source_for_sizes(block, device, policy, sessions)
    for engine in block.manifest.engines:
        verdict = verdict_of(engine, device, policy)
        if verdict:
            key = (engine.data.index, device)
            in_cpp = _open_in_cpp(block, engine, device, policy, sessions)
            session = in_cpp or sessions.get(key) or _open(block, engine, device, policy)
            if policy.check == "first-open" and not isinstance(session, Verdict):
                session = _checked(block, engine, session, device)
            if isinstance(session, Verdict):
                verdict = session
                sessions.pop(key, None)
            else:
                if in_cpp is None:
                    sessions[key] = session
                adopted = bool(engine.build.get("adopted"))
                session = with_graphs(session, policy)
                session = within_profiles(session, block.signature, source, adopted=adopted)
                opened.append((engine, session))
                all_in_cpp.append(in_cpp)
        verdicts.append((engine.backend, verdict))
        if opened and policy.select != "measured":
            break
    if len(opened) > 1:
        return _fastest(block, opened, all_in_cpp, device, sessions, verdicts)
    if opened:
        engine, session = opened[0]
        name = engine.backend if all_in_cpp[0] is None else f"{engine.backend} in C++"
        logger.info("%s runs as %s%s", block.name, name, not_chosen(verdicts[:-1]))
        return Selection(session, engine.backend, tuple(verdicts), all_in_cpp[0])
    made = _built_here(block, device, policy, sessions, verdicts, source)
    return made or _source(block, device, policy, tuple(verdicts), sessions)


def _built_here(
    block: StoredBlock,
    device: torch.device,
    policy: Policy,
    sessions: Sessions,
    verdicts: list[tuple[str, Verdict]],
    source: Callable[[OutOfProfileError], Session] | None,
) -> Selection | None:
    """Build an engine from the source as the policy requests; None if it requests or gets none."""
    if not block.has_source or (policy.rebuild != "missing" and policy.fallback != COMPILED):
        return None
    from portrt.runtime.rebuilding import compiled, rebuilt  # rarely needed

    if policy.rebuild == "missing":
        made = rebuilt(block, device, policy, sessions, verdicts)
        if made is not None:
            session = within_profiles(made.session, block.signature, source)
            return dataclasses.replace(made, session=session)
    if policy.fallback != COMPILED:
        return None

    def open_source(why: str) -> Session:
        return _open_source(block, device, sessions, why)

    return compiled(block, device, policy, sessions, verdicts, open_source)


def _fastest(
    block: StoredBlock,
    opened: Sequence[tuple[EngineSpec, Session]],
    in_cpp: Sequence[CppSession | None],
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
            sessions.pop((engine.data.index, device, "cpp"), None)
    only = in_cpp[chosen[0]] if len(set(chosen)) == 1 else None
    return Selection(session, opened[chosen[0]][0].backend, tuple(verdicts), only)


def _checked(
    block: StoredBlock, engine: EngineSpec, session: Session, device: torch.device
) -> Session | Verdict:
    """Return the session, or a no if the engine's outputs are wrong."""
    from portrt.runtime.first_open import first_open_verdict  # imports the cache, rarely needed

    verdict = first_open_verdict(block, engine, session, device)
    return session if verdict else verdict


def _open_in_cpp(
    block: StoredBlock,
    engine: EngineSpec,
    device: torch.device,
    policy: Policy,
    sessions: Sessions,
) -> CppSession | None:
    if policy.runtime != "cpp":
        return None
    from portrt.runtime.cpp_engines import open_in_cpp  # rarely needed

    return open_in_cpp(
        block, engine, device, sessions, lambda: _open(block, engine, device, policy)
    )


def _open(
    block: StoredBlock, engine: EngineSpec, device: torch.device, policy: Policy
) -> Session | Verdict:
    """Open an engine; return the session, or a no with the reason."""
    try:
        return block.open_engine(engine, device, open_options(engine, policy))
    except PackageError:
        raise
    except EngineError as err:
        return Verdict.no("open_failed", f"it could not be opened: {err.happened}", err.remedy)
    except Exception as err:  # any failure of a backend leaves the other engines usable
        logger.exception("opening the %s engine of %s failed", engine.backend, block.name)
        return Verdict.no("open_failed", f"it could not be opened: {type(err).__name__}: {err}")


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
    logger.info("%s runs as %s%s", block.name, EAGER, not_chosen(verdicts))
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
