"""`Debugger`: a level of the logger "portrt", and a log file."""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
from pathlib import Path

from portrt.errors import SettingsError
from portrt.torch_tensorrt.options import warn

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "internal_errors": logging.CRITICAL,
    "graphs": logging.DEBUG,
}
# What it has an effect on in Torch-TensorRT alone -> what to use here.
_ELSEWHERE = {
    "capture_fx_graph_before": "passes=[function] of compile gets the lowered graph",
    "capture_fx_graph_after": "passes=[function] of compile gets the lowered graph",
    "save_engine_profile": "portrt profile FILE times each layer of a saved program",
    "save_layer_info": "portrt inspect FILE lists engines, portrt profile FILE their layers",
}


class Debugger:
    """Context manager: messages of the logger "portrt" go to a file in a folder, too.

    Args:
        log_level: "debug", "info", "warning", "error", "internal_errors" or "graphs".
        capture_fx_graph_before, capture_fx_graph_after: No effect, with a warning.
        save_engine_profile: No effect, with a warning.
        profile_format: No effect.
        engine_builder_monitor: No effect: a terminal shows the builder's progress in any case.
        logging_dir: The folder; it is made if there is none.
        save_layer_info: No effect, with a warning.

    Raises:
        SettingsError: The level is unknown.
    """

    def __init__(
        self,
        log_level: str = "debug",
        capture_fx_graph_before: list[str] | None = None,
        capture_fx_graph_after: list[str] | None = None,
        save_engine_profile: bool = False,
        profile_format: str = "perfetto",  # noqa: ARG002  (as there)
        engine_builder_monitor: bool = True,  # noqa: ARG002
        logging_dir: str | os.PathLike[str] | None = None,
        save_layer_info: bool = False,
    ) -> None:
        if log_level not in _LEVELS:
            raise SettingsError(
                f"log_level is {log_level!r}",
                f"one of {', '.join(map(repr, _LEVELS))}",
                "choose a log_level from the list",
            )
        given = {
            "capture_fx_graph_before": capture_fx_graph_before,
            "capture_fx_graph_after": capture_fx_graph_after,
            "save_engine_profile": save_engine_profile,
            "save_layer_info": save_layer_info,
        }
        ignored = [f"{name}: {_ELSEWHERE[name]}" for name, value in given.items() if value]
        if ignored:
            warn("Debugger has no effect in portrt with " + "; ".join(ignored))
        user = Path(tempfile.gettempdir()) / f"torch_tensorrt_{getpass.getuser()}"
        self._folder = Path(logging_dir) if logging_dir is not None else user / "debug_logs"
        self._level = _LEVELS[log_level]

    def __enter__(self) -> None:
        logger = logging.getLogger("portrt")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self._folder / "portrt.log", encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        self._before = logger.level
        logger.setLevel(self._level)
        logger.addHandler(self._handler)

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("portrt")
        logger.removeHandler(self._handler)
        logger.setLevel(self._before)
        self._handler.close()
