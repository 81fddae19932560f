"""A selection: the session that runs a block, and why."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

import torch

from portrt.engines.base import OpenOptions, Session
from portrt.format.manifest import EngineSpec
from portrt.runtime.policy import Policy
from portrt.runtime.trust import trusts_host_code
from portrt.verdict import Verdict

# Keys: index of the engine's blob, and device; rebuilt engines have negative indices.
Sessions = MutableMapping[tuple[int, torch.device], Session]


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


def with_graphs(session: Session, policy: Policy) -> Session:
    """Return a session that replays CUDA graphs if the policy requires it and the engine can."""
    if not policy.cuda_graphs or not session.supports_graphs:
        return session
    return session.graphed(policy.cuda_graphs)


def open_options(engine: EngineSpec, policy: Policy) -> OpenOptions:
    """Return how an engine is opened under a policy."""
    return OpenOptions(trusted_host_code=trusts_host_code(engine, policy))


def not_chosen(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """Return the verdicts on engines that were not chosen, for the log."""
    return "".join(f"; {name}: {verdict}" for name, verdict in verdicts)
