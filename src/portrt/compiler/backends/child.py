"""Child processes of builders: their end, and the last lines of their logs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

_LOG_LINES = 12
_LOG_BYTES = 1 << 16
_LINE_CHARS = 500


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of a child: it may be a script that starts another."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()


def ending(code: int) -> str:
    """Describe how a child ended that has left no result."""
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code} and no result"


def last_lines(path: Path) -> str:
    """Return the last lines of a log as text; only the end of the file is read."""
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
        text = log.read().decode(errors="replace")
    lines = text.splitlines()[-_LOG_LINES:]
    if not lines:
        return " Its log is empty."
    return " Last lines of its log:" + "".join(f"\n    {cut(line)}" for line in lines)


def cut(line: Any) -> str:
    """Return a line of text that is not too long for a message."""
    text = str(line)
    return text if len(text) <= _LINE_CHARS else f"{text[:_LINE_CHARS]}..."
