"""Engines that are built where a program runs: rebuild="missing" and fallback="inductor"."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from portrt.engines.base import Session
from portrt.errors import EngineError
from portrt.runtime.choice import COMPILED
from portrt.runtime.policy import Policy
from portrt.runtime.selection import (
    FallbackWarning,
    Selection,
    Sessions,
    not_chosen,
    open_options,
    with_graphs,
)
from portrt.runtime.stored_block import StoredBlock
from portrt.targets import backends
from portrt.targets.backends import REBUILDER
from portrt.verdict import YES, Verdict

logger = logging.getLogger(__name__)

_IN_BACKGROUND = -(1 << 20)  # no engine has this index

NO_REBUILDER = Verdict.no(
    "no_builder",
    "no builder is installed here",
    "install portrt with its compiler, or use rebuild='never'",
)


def rebuilder() -> Any | None:
    """Return the module that builds engines from sources; None if no compiler is installed."""
    try:
        return import_module(REBUILDER)
    except ModuleNotFoundError as err:
        if err.name is None or not f"{REBUILDER}.".startswith(f"{err.name}."):
            raise
        return None


def can_compile(device: torch.device) -> Verdict:
    """Return whether fallback="inductor" can compile sources here, for tensors of a device."""
    builders = rebuilder()
    verdict: Verdict = NO_REBUILDER if builders is None else builders.can_build(COMPILED, device)
    return verdict


def compiled(
    block: StoredBlock,
    device: torch.device,
    policy: Policy,
    sessions: Sessions,
    verdicts: list[tuple[str, Verdict]],
    open_source: Callable[[str], Session],
) -> Selection | None:
    """Compile the source as the fallback, now or beside calls that run in PyTorch.

    Args:
        block: Block with its source.
        device: Device of the inputs.
        policy: Policy with every field set.
        sessions: Sessions that are open already.
        verdicts: Verdicts on the stored engines; the reason is appended if nothing is compiled.
        open_source: Opens the source, and warns with the reason that it gets.

    Returns:
        The selection; None if there is no compiler here, or the compilation failed.
    """
    verdict = can_compile(device)
    if not verdict:
        verdicts.append((f"{COMPILED}, compiled", verdict))
        return None
    alone = dataclasses.replace(policy, engines=(COMPILED,))
    lines = "".join(f"\n    {name}: {item}" for name, item in verdicts) or " none is stored"
    why = f"no stored engine can run here on {device.type} tensors.{lines}"
    if policy.background:
        from portrt.runtime.background import BackgroundSession  # rarely needed

        key = (_IN_BACKGROUND, device)
        if key not in sessions:
            until = f"{why}\n    Until an {COMPILED} engine is compiled, calls run in PyTorch."
            source = open_source(until)
            tried: list[tuple[str, Verdict]] = []
            sessions[key] = BackgroundSession(
                block.name, source, lambda: rebuilt(block, device, alone, sessions, tried), tried
            )
        return Selection(sessions[key], COMPILED, tuple(verdicts))
    found = rebuilt(block, device, alone, sessions, verdicts)
    if found is not None:
        text = f"{block.name} runs in an {COMPILED} engine that was compiled here: {why}"
        warnings.warn(text, FallbackWarning, stacklevel=2)
    return found


def rebuilt(
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
        session = block.open_engine(spec, device, open_options(spec, policy), found.bytes_of)
    except EngineError as err:
        verdicts.append((label, Verdict.no("open_failed", err.happened, err.remedy)))
        return None
    sessions[spec.data.index, device] = session
    session = with_graphs(session, policy)
    logger.info("%s runs as %s, rebuilt%s", block.name, spec.backend, not_chosen(verdicts))
    verdicts.append((label, YES))
    return Selection(session, spec.backend, tuple(verdicts))
