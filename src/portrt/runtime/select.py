"""select: a verdict on each stored engine, in order of preference; the first yes runs."""

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
from portrt.runtime.trust import is_trusted
from portrt.targets import backends
from portrt.targets.backends import REBUILDER
from portrt.targets.requirements import UNKNOWN_BACKEND
from portrt.targets.trust import HOST_CODE
from portrt.verdict import YES, Verdict

logger = logging.getLogger(__name__)

# By index of the blob and device; what was rebuilt has a negative number for its blob.
Sessions = MutableMapping[tuple[int, torch.device], Session]

NO_REBUILDER = Verdict.no(
    "no_builder",
    "no builder is installed here",
    "install portrt with its compiler, or use rebuild='never'",
)


class FallbackWarning(UserWarning):
    """A block runs in PyTorch because no stored engine fits this machine."""


@dataclass(frozen=True)
class Selection:
    """What runs a block, and why.

    Attributes:
        session: The opened engine, or the source.
        name: Backend of the engine, or "eager".
        verdicts: (backend, verdict) for each engine that was asked, in order.
    """

    session: Session
    name: str
    verdicts: tuple[tuple[str, Verdict], ...]


def verdict_of(engine: EngineSpec, device: torch.device, policy: Policy) -> Verdict:
    """Whether an engine may run here on tensors of a device, without opening it."""
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

    Args:
        block: With its engines.
        device: Where the inputs are.
        policy: Complete: its fallback is set.
        sessions: What is open already; what is opened is added.

    Raises:
        NoUsableEngineError: No engine fits, and the policy or the file has no fallback.
        PackageError: The bytes to be opened are not those that the manifest describes.
    """
    verdicts: list[tuple[str, Verdict]] = []
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
                verdicts.append((engine.backend, verdict))
                logger.info(
                    "%s runs as %s%s", block.name, engine.backend, _not_chosen(verdicts[:-1])
                )
                return Selection(session, engine.backend, tuple(verdicts))
        verdicts.append((engine.backend, verdict))
    if policy.rebuild == "missing" and block.has_source:
        rebuilt = _rebuilt(block, device, policy, sessions, verdicts)
        if rebuilt is not None:
            return dataclasses.replace(
                rebuilt, session=within_profiles(rebuilt.session, block.signature, source)
            )
    return _source(block, device, policy, tuple(verdicts), sessions)


def _checked(
    block: StoredBlock, engine: EngineSpec, session: Session, device: torch.device
) -> Session | Verdict:
    """The session, or why the engine must not run."""
    from portrt.runtime.first_open import first_open_verdict  # the cache, rarely needed

    verdict = first_open_verdict(block, engine, session, device)
    return session if verdict else verdict


def with_graphs(session: Session, policy: Policy) -> Session:
    """The session as the policy wants it: replaying CUDA graphs, if it can and should."""
    if not policy.cuda_graphs or not session.supports_graphs:
        return session
    return session.graphed(policy.cuda_graphs)


def rebuilder() -> Any | None:
    """The module that builds engines from sources, or None where no compiler is installed."""
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
    """An engine built here from the source, or None; `verdicts` gets what was tried."""
    for index, name in enumerate(backends.names(), 1):  # under another policy
        known = sessions.get((-index, device))
        if known is not None and (policy.engines is None or name in policy.engines):
            known = with_graphs(known, policy)
            return Selection(known, name, (*verdicts, (f"{name}, rebuilt", YES)))
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
        session = registry.runtime(spec.backend).open(
            spec,
            block.signature,
            found.data,
            block.weights,
            device=device,
            options=_options(spec, policy),
        )
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
    """The session, or why the engine cannot be opened."""
    data = block.engine_bytes(engine)
    try:
        return registry.runtime(engine.backend).open(
            engine,
            block.signature,
            data,
            block.weights,
            device=device,
            options=_options(engine, policy),
        )
    except PackageError:
        raise
    except EngineError as err:
        return Verdict.no("open_failed", f"it could not be opened: {err.happened}", err.remedy)
    except Exception as err:  # a backend that breaks its promise does not take the others down
        logger.exception("opening %s of %s", engine.backend, block.name)
        return Verdict.no("open_failed", f"it could not be opened: {type(err).__name__}: {err}")


def _options(engine: EngineSpec, policy: Policy) -> OpenOptions:
    return OpenOptions(trusted_host_code=is_trusted(HOST_CODE, engine.data.sha256, policy))


def _source(
    block: StoredBlock,
    device: torch.device,
    policy: Policy,
    verdicts: tuple[tuple[str, Verdict], ...],
    sessions: Sessions,
) -> Selection:
    lines = "".join(f"\n    {name}: {verdict}" for name, verdict in verdicts) or " none is stored"
    able = source_verdict(block.has_source, policy.fallback)
    if not able:
        raise NoUsableEngineError(
            f"no engine of {block.name} can run here on {device.type} tensors, "
            f"and {able.reason}:{lines}",
            "a stored engine that this machine accepts",
            "compile with an engine for this machine, or run with fallback='eager'",
        )
    why = f"no stored engine can run here on {device.type} tensors.{lines}"
    session = _open_source(block, device, sessions, why)
    logger.info("%s runs as %s%s", block.name, EAGER, _not_chosen(verdicts))
    return Selection(session, EAGER, verdicts)


def _open_source(block: StoredBlock, device: torch.device, sessions: Sessions, why: str) -> Session:
    """The source's session, with a warning that says why when it is opened first."""
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
        sessions[key] = session  # last: whoever makes the warning an error is told at each call
    return sessions[key]


def _source_for_sizes(
    block: StoredBlock,
    device: torch.device,
    policy: Policy,
    sessions: Sessions,
) -> Callable[[OutOfProfileError], Session] | None:
    """Opens the source for sizes that an engine has no profile for; None where it must not run."""
    if not source_verdict(block.has_source, policy.fallback):
        return None

    def opened(err: OutOfProfileError) -> Session:
        why = f"{err.happened}; it takes {err.expected}\n    Calls of such sizes run in the engine."
        return _open_source(block, device, sessions, why)

    return opened


def _not_chosen(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    return "".join(f"; {name}: {verdict}" for name, verdict in verdicts)
