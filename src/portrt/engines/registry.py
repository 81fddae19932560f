"""The runtimes of engines, by the names of their backends."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import torch

from portrt.engines.base import EngineRuntime
from portrt.errors import BackendUnavailableError, EngineError
from portrt.format.manifest import EngineSpec
from portrt.targets import backends
from portrt.targets.backends import BackendInfo
from portrt.verdict import Verdict

logger = logging.getLogger(__name__)


@lru_cache
def runtime(name: str) -> EngineRuntime:
    """Return the runtime of a backend's engines.

    Raises:
        BackendUnavailableError: There is no such backend; the message lists the known names.
    """
    row = row_of(name)
    try:
        found: EngineRuntime = backends.resolve(row.runtime)()
    except Exception as err:
        return _NoRuntime(name, unavailable(row, row.runtime, err))
    return found


def row_of(name: str) -> BackendInfo:
    """Return the row of a backend.

    Raises:
        BackendUnavailableError: There is none; the message lists the known names.
    """
    row = backends.find(name)
    if row is None:
        raise BackendUnavailableError(
            f"there is no engine {name!r}",
            f"one of {', '.join(map(repr, backends.names()))}",
            "correct the name; `portrt doctor` lists which of them work on this machine",
        )
    return row


def unavailable(row: BackendInfo, path: str, err: Exception) -> Verdict:
    """Make the verdict for a part of a backend that cannot be imported, and log its traceback."""
    logger.warning("%s of the backend %s cannot be imported", path, row.name, exc_info=err)
    text = (str(err).splitlines() or [""])[0]
    remedy = " or see ".join(part for part in (row.install, row.documentation) if part)
    return Verdict.no(
        "library_missing", f"{path} cannot be imported: {type(err).__name__}: {text}", remedy
    )


@dataclass(frozen=True)
class _NoRuntime:
    """Takes the place of a runtime that cannot be imported."""

    name: str
    verdict: Verdict

    def can_run(self, device: str) -> Verdict:  # noqa: ARG002
        return self.verdict

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:  # noqa: ARG002
        return self.verdict

    def open(self, *_: object, **__: object) -> NoReturn:
        raise EngineError(
            f"a {self.name} engine cannot be opened: {self.verdict.reason}",
            "a runtime that can be imported",
            self.verdict.remedy,
        )
