"""Progress of a builder in another process, which it writes as lines of JSON to a file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from portrt.progress import ShowStep

logger = logging.getLogger(__name__)

_MAX_CHARS = 80  # of the name of a phase
_MAX_PHASES = 100  # in the log


class BuilderProgress:
    """Reads the file as it grows. Each phase is logged once; malformed lines are ignored.

    Args:
        path: The file; need not exist yet.
        what: Block and backend, for the log.
        show: Called with each step.
    """

    def __init__(self, path: Path, what: str, show: ShowStep) -> None:
        self._path = path
        self._what = what
        self._show = show
        self._read = 0  # bytes
        self._phases: set[str] = set()

    def poll(self) -> None:
        """Report the lines that were added since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return
        complete = new[: new.rfind(b"\n") + 1]  # the last line may still be incomplete
        self._read += len(complete)
        for line in complete.splitlines():
            self._report(line)

    def _report(self, line: bytes) -> None:
        try:
            entry: Any = json.loads(line)
            phase, step, steps = entry["phase"], entry["step"], entry["steps"]
        except (ValueError, TypeError, KeyError):
            return
        if not isinstance(phase, str) or type(step) is not int or type(steps) is not int:
            return
        phase = phase[:_MAX_CHARS]
        if phase not in self._phases and len(self._phases) < _MAX_PHASES:
            self._phases.add(phase)
            logger.info("%s: %s (%d steps)", self._what, phase, steps)
        self._show(phase, step, steps)
