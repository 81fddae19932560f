"""Compilation of a source beside calls, which run in PyTorch until then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt.engines.base import Session
from portrt.verdict import Verdict

logger = logging.getLogger(__name__)


class BackgroundSession(Session):
    """Runs the source of a block until a thread has compiled it; then what was compiled.

    Args:
        name: Name of the block.
        source: Session of the source.
        compile_it: Compiles it; returns an object with its `session`, or None.
        tried: Verdicts that it appends, by backend; the last one is the reason of a None.
    """

    def __init__(
        self,
        name: str,
        source: Session,
        compile_it: Callable[[], Any],
        tried: Sequence[tuple[str, Verdict]],
    ) -> None:
        self._name = name
        self._session = source
        self._compile = compile_it
        self._tried = tried
        # A daemon, so that the process can end meanwhile; that ends the compiler as well.
        threading.Thread(target=self._run_thread, name="portrt-compile", daemon=True).start()

    def _run_thread(self) -> None:
        try:
            found = self._compile()
        except Exception:
            logger.exception("%s stays in PyTorch: compiling it failed", self._name)
            return
        if found is None:
            reason = self._tried[-1][1] if self._tried else "no reason given"
            logger.warning("%s stays in PyTorch: %s", self._name, reason)
            return
        self._session = found.session
        logger.info("%s runs as %s from now on", self._name, found.name)

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once; see `Session`."""
        return self._session.run(inputs, shapes)
