"""A selection: the session that runs a block, and why."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from portrt.engines.base import OpenOptions, Session
from portrt.errors import OutOfProfileError
from portrt.format.manifest import Dimension, EngineSpec, Signature
from portrt.runtime.policy import Policy
from portrt.runtime.trust import trusts_host_code
from portrt.verdict import Verdict

if TYPE_CHECKING:
    from portrt.engines.onnxruntime.cpp_session import CppSession

# Keys: index of the engine's blob, device, and "cpp" for those that are opened in C++; rebuilt
# engines have negative indices.
Sessions = MutableMapping[tuple[int, torch.device] | tuple[int, torch.device, str], Session]


class FallbackWarning(UserWarning):
    """A block runs in PyTorch because no stored engine can run on this machine."""


@dataclass(frozen=True)
class Selection:
    """The session that runs a block, and the verdicts that led to it.

    Attributes:
        session: Session of the engine or of the source.
        name: Backend of the engine, or "eager".
        verdicts: (backend, verdict) for each engine that was checked, in order.
        in_cpp: The session that the C++ runtime has opened, if the engine runs there.
    """

    session: Session
    name: str
    verdicts: tuple[tuple[str, Verdict], ...]
    in_cpp: CppSession | None = None

    @property
    def runtime(self) -> str:
        """Return what calls the engine: "cpp" or "python"."""
        return "python" if self.in_cpp is None else "cpp"


def with_graphs(session: Session, policy: Policy) -> Session:
    """Return a session that replays CUDA graphs if the policy requires it and the engine can."""
    if not policy.cuda_graphs or not session.supports_graphs:
        return session
    return session.graphed(policy.cuda_graphs)


def within_profiles(
    session: Session,
    signature: Signature,
    source: Callable[[OutOfProfileError], Session] | None,
    *,
    adopted: bool = False,
) -> Session:
    """Wrap a session so that PyTorch runs calls whose sizes are in none of its profiles.

    Args:
        session: Session of an engine.
        signature: Inputs of the block. If its dimensions have no profiles, engines built by portrt
            accept every size in range, but for those that do not take all sizes; others are
            returned unchanged.
        source: Opens the source and warns with the reason; None if PyTorch must not run.
        adopted: Whether the engine is prebuilt, with profiles that only the engine knows.
    """
    sizes = [size for spec in signature.inputs for size in spec.shape]
    profiled = any(isinstance(size, Dimension) and size.profiles for size in sizes)
    limited = profiled or adopted or not session.takes_all_sizes
    if source is None or not limited:
        return session
    from portrt.runtime.profile_fallback import SessionWithSource  # few engines need it

    return SessionWithSource(session, source)


def open_options(engine: EngineSpec, policy: Policy) -> OpenOptions:
    """Return how an engine is opened under a policy."""
    return OpenOptions(trusted_host_code=trusts_host_code(engine, policy))


def not_chosen(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """Return the verdicts on engines that were not chosen, for the log."""
    return "".join(f"; {name}: {verdict}" for name, verdict in verdicts)
