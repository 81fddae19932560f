"""Fallback to PyTorch for calls whose sizes are in no optimization profile of the engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import torch

from portrt import forks
from portrt.engines.base import LayerTime, Session
from portrt.errors import OutOfProfileError

logger = logging.getLogger(__name__)


class SessionWithSource(Session):
    """Runs an engine, and the source for sizes that are in no profile of the engine.

    Args:
        session: Session of the engine.
        source: Opens the source; called once, with the error of the engine.
    """

    def __init__(self, session: Session, source: Callable[[OutOfProfileError], Session]) -> None:
        self._session = session
        self._open = source
        self._source: Session | None = None
        self._lock = forks.renewed(threading.Lock())
        self.supports_layer_times = session.supports_layer_times

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once; see `Session`."""
        try:
            return self._session.run(inputs, shapes)
        except OutOfProfileError as err:
            with self._lock:
                if self._source is None:
                    self._source = self._open(err)
            logger.debug("in PyTorch: %s", err.happened)
        return self._source.run(inputs, shapes)

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Return the execution times of the engine's layers."""
        return self._session.layer_times(inputs, shapes, calls=calls)
