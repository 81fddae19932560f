"""Large data in a temporary file that goes when nothing uses it any more. No torch in here."""

from __future__ import annotations

import logging
import mmap
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from portrt.format.atomic import write_all
from portrt.format.memory_map import map_file, when_unused

logger = logging.getLogger(__name__)

# What is left free on the disk: others write there too.
_MARGIN_BYTES = 64 << 20


def scratch_file(size: int, parts: Iterable[Any]) -> mmap.mmap | None:
    """A new file of these parts, mapped; None where it cannot be written.

    Args:
        size: Bytes of all parts.
        parts: Buffers, one after the other.
    """
    folder = None
    try:
        if shutil.disk_usage(tempfile.gettempdir()).free < size + _MARGIN_BYTES:
            raise OSError(f"{tempfile.gettempdir()} has no room for {size} bytes")
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
