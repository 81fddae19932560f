"""Where the cache is, and how large it may grow. No torch in here."""

from __future__ import annotations

import os
from pathlib import Path

from portrt.errors import SettingsError

ENV_DIR = "PORTRT_CACHE_DIR"
ENV_BYTES = "PORTRT_CACHE_BYTES"
_OFF = ("", "off")
TIMING = "timing"
_DEFAULT_BYTES = 10_000_000_000


def cache_folder(setting: str | None = None) -> Path | None:
    """The folder: the setting, else the environment's, else the user's; None where it is off."""
    chosen = os.environ.get(ENV_DIR) if setting is None else setting
    if chosen is not None:
        return None if chosen.strip().lower() in _OFF else Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("portrt"))


def timing_cache_folder(setting: str | None = None) -> Path | None:
    """Where TensorRT's builder keeps what it measured; None where there is no place to keep it."""
    folder = cache_folder(setting)
    if folder is None:
        return None
    try:
        (folder / TIMING).mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / TIMING


def cache_limit_bytes() -> int:
    """What the cache may hold.

    Raises:
        SettingsError: The environment's number is none.
    """
    text = os.environ.get(ENV_BYTES)
    if text is None:
        return _DEFAULT_BYTES
    if not text.strip().isdecimal():
        raise SettingsError(
            f"the environment says {ENV_BYTES}={text!r}",
            "a whole number of bytes, such as 10000000000",
            "correct or unset the variable",
        )
    return int(text)
