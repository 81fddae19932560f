"""Levels of the logger "portrt", by Torch-TensorRT's names."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any

_LOGGER = "portrt"


def set_level(level: int, logger: Any = None) -> None:
    """Set the level of the logger "portrt", or of another one."""
    (logger or logging.getLogger(_LOGGER)).setLevel(level)


class _Level:
    """Context manager: messages of this level and above are shown on standard error."""

    level = logging.WARNING

    def __enter__(self) -> None:
        logger = logging.getLogger(_LOGGER)
        self._before = logger.level
        self._handler: logging.Handler | None = None
        if not logger.hasHandlers():
            self._handler = logging.StreamHandler()
            self._handler.setFormatter(logging.Formatter("%(name)s %(levelname)s: %(message)s"))
            logger.addHandler(self._handler)
        set_level(self.level)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logger = logging.getLogger(_LOGGER)
        logger.setLevel(self._before)
        if self._handler is not None:
            logger.removeHandler(self._handler)


class internal_errors(_Level):  # noqa: N801  (Torch-TensorRT's names, here and below)
    """Critical errors alone."""

    level = logging.CRITICAL


class errors(_Level):  # noqa: N801
    """Errors."""

    level = logging.ERROR


class warnings(_Level):  # noqa: N801
    """Warnings and above: the default."""

    level = logging.WARNING


class info(_Level):  # noqa: N801
    """What each stage took, and above."""

    level = logging.INFO


class debug(_Level):  # noqa: N801
    """Everything."""

    level = logging.DEBUG


class graphs(_Level):  # noqa: N801
    """The same as `debug`: graphs are not logged, `compile(report=...)` lists their nodes."""

    level = logging.DEBUG


__all__ = ["debug", "errors", "graphs", "info", "internal_errors", "set_level", "warnings"]
