"""Folder and size limit of the cache. Does not import torch."""

from __future__ import annotations

import os
from pathlib import Path

from portrt.errors import SettingsError

ENV_DIR = "PORTRT_CACHE_DIR"
ENV_BYTES = "PORTRT_CACHE_BYTES"
_OFF = ("", "off")
TIMING = "timing"
INDUCTOR = "inductor"
CPP = "cpp"
CPP_LIBRARY = "libportrt_runtime.so"
CPP_WITHOUT_TORCH = "libportrt.so"
_DEFAULT_BYTES = 10_000_000_000


def cache_folder(setting: str | None = None) -> Path | None:
    """Return the folder: the setting, else the environment's, else the user's; None if off."""
    chosen = os.environ.get(ENV_DIR) if setting is None else setting
    if chosen is not None:
        return None if chosen.strip().lower() in _OFF else Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("portrt"))


def timing_cache_folder(setting: str | None = None) -> Path | None:
    """Return the folder of TensorRT's timing caches; None if the cache is off or not writable."""
    folder = cache_folder(setting)
    if folder is None:
        return None
    try:
        (folder / TIMING).mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / TIMING


def inductor_folder(setting: str | None = None) -> Path | None:
    """Return the folder of Inductor's own cache; None if the cache is off or not writable."""
    folder = cache_folder(setting)
    if folder is None:
        return None
    try:
        (folder / INDUCTOR).mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / INDUCTOR


def cache_limit_bytes() -> int:
    """Return the size limit of the cache in bytes.

    Raises:
        SettingsError: The environment variable is not an integer.
    """
    text = os.environ.get(ENV_BYTES)
    if text is None:
        return _DEFAULT_BYTES
    if not text.strip().isdecimal():
        raise SettingsError(
            f"the environment has {ENV_BYTES}={text!r}",
            "an integer number of bytes, such as 10000000000",
            "correct or unset the variable",
        )
    return int(text)
