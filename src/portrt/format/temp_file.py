"""Temporary folders, and large data in a temporary file that is removed when nothing uses it.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from portrt.format.atomic import write_all
from portrt.format.memory_map import map_file, when_unused

logger = logging.getLogger(__name__)

# Space that is left free on the disk for other processes.
_MARGIN_BYTES = 64 << 20


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Make a folder, and remove it with its contents when the block ends.

    `tempfile.TemporaryDirectory` removes it as well when a child ends that was forked meanwhile.
    """
    owner = os.getpid()
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


def scratch_file(size: int, parts: Iterable[Any]) -> mmap.mmap | None:
    """Write these parts to a temporary file and map it; return None if it cannot be written.

    Args:
        size: Total number of bytes of all parts.
        parts: Buffers, written one after the other.
    """
    folder = None
    try:
        if shutil.disk_usage(tempfile.gettempdir()).free < size + _MARGIN_BYTES:
            raise OSError(f"{tempfile.gettempdir()} has less than {size} bytes free")
        folder = Path(tempfile.mkdtemp(prefix="portrt-weights-"))
        path = folder / "weights.safetensors"
        with path.open("wb", buffering=0) as file:
            for part in parts:
                write_all(file, part)
        memory = map_file(path)
    except OSError as err:
        logger.info("the weights are kept in memory: %s", err)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return None
    remove = folder
    when_unused(memory, lambda: shutil.rmtree(remove, ignore_errors=True))
    return memory
