"""Files in memory: mapped, known by their addresses, and let go of. No torch in here.

A mapped file is read where it is touched, and what was read stays in the process's memory. What was
only passed over, as for a digest, is let go of again; and a library that can map a file itself is
told which file some memory is of, so that it need not copy it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Region:
    """Memory that a file is mapped to.

    Attributes:
        address: Of its first byte.
        size: Number of bytes, from the beginning of the file on.
        path: The file, without symbolic links.
        identity: Tells the file that was mapped from any other, and from a changed one.
        memory: The mapping; dead when nothing uses it any more.
    """

    address: int
    size: int
    path: Path
    identity: tuple[int, ...]
    memory: weakref.ref[mmap.mmap]

    def is_there(self) -> bool:
        """Whether the path still leads to the very file that is mapped, unchanged."""
        try:
            return _identity(self.path.stat()) == self.identity
        except OSError:
            return False


_regions: dict[int, Region] = {}


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """A file as memory, private to this process: what is written to it never reaches the file."""
    with Path(path).open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        identity = _identity(os.fstat(file.fileno()))
    address, size = _place(memory) or (0, 0)
    real = Path(path).resolve()
    _regions[address] = Region(address, size, real, identity, weakref.ref(memory, _forget))
    return memory


def _forget(dead: weakref.ref[mmap.mmap]) -> None:
    for address, region in list(_regions.items()):
        if region.memory is dead:  # another may have been mapped to that address already
            del _regions[address]


def region_at(address: int, size: int) -> Region | None:
    """The mapped file that these bytes of memory are of, or None."""
    for region in list(_regions.values()):
        if region.address <= address and address + size <= region.address + region.size:
            return region
    return None


def drop_pages(buffer: Any) -> None:
    """Take what a buffer has of a mapped file out of memory; it is read again when it is used.

    Nothing happens to other memory. Only for what is never written: that would be lost.
    """
    place = _place(buffer)
    region = None if place is None else region_at(*place)
    memory = None if region is None else region.memory()
    if place is None or region is None or memory is None or not hasattr(memory, "madvise"):
        return
    start = place[0] - region.address
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (start + place[1]) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        with contextlib.suppress(OSError, ValueError):
            memory.madvise(mmap.MADV_DONTNEED, first, end - first)


def sha256_of(buffer: Any) -> str:
    """The digest of a buffer, in hexadecimal; of a mapped file, little is in memory at a time."""
    view = memoryview(buffer)
    view = view.cast("B") if view.nbytes else memoryview(b"")
    digest = hashlib.sha256()
    for start in range(0, view.nbytes, _CHUNK_BYTES):
        part = view[start : start + _CHUNK_BYTES]
        digest.update(part)
        drop_pages(part)
    return digest.hexdigest()


def when_unused(memory: mmap.mmap, call: Callable[[], Any]) -> None:
    """Call something when nothing uses a mapping any more, or the process ends."""
    owner = os.getpid()
    weakref.finalize(memory, lambda: call() if os.getpid() == owner else None)


def _place(buffer: Any) -> tuple[int, int] | None:
    """Address and size of a buffer; None where it cannot be a mapping, which can be written."""
    view = memoryview(buffer)
    if view.readonly or not view.nbytes:
        return None
    return ctypes.addressof(ctypes.c_char.from_buffer(view)), view.nbytes


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
