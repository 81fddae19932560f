"""Memory-mapped files, registered by address. Imports no torch.

Pages of a mapped file are read on access and stay resident. Pages that are only read once, as for a
digest, are dropped again. A library that can map a file itself gets path and offset of the memory,
so that it need not copy it.
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

from portrt.errors import SaveError

_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Region:
    """Memory that a file is mapped to.

    Attributes:
        address: Address of its first byte.
        size: Number of bytes, from the beginning of the file.
        path: Path of the file, with symbolic links resolved.
        identity: Device, inode, size and modification time of the file when it was mapped.
        memory: The mapping; dead when nothing uses it any more.
    """

    address: int
    size: int
    path: Path
    identity: tuple[int, ...]
    memory: weakref.ref[mmap.mmap]

    def is_there(self) -> bool:
        """Return whether the path still refers to the mapped file, unmodified."""
        try:
            return _identity(self.path.stat()) == self.identity
        except OSError:
            return False


_regions: dict[int, Region] = {}


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """Map a file copy-on-write: writes to the memory never reach the file."""
    with Path(path).open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        identity = _identity(os.fstat(file.fileno()))
    address, size = _extent(memory) or (0, 0)
    real = Path(path).resolve()
    _regions[address] = Region(address, size, real, identity, weakref.ref(memory, _forget))
    return memory


def _forget(dead: weakref.ref[mmap.mmap]) -> None:
    for address, region in list(_regions.items()):
        if region.memory is dead:  # the address may be in use by a newer mapping
            del _regions[address]


def region_at(address: int, size: int) -> Region | None:
    """Return the mapped file that contains these bytes of memory, or None."""
    for region in list(_regions.values()):
        if region.address <= address and address + size <= region.address + region.size:
            return region
    return None


def set_aside(path: str | os.PathLike[str]) -> None:
    """Remove the name of a file that is mapped here, before it is opened to be written anew.

    Its bytes stay in memory, and on disk, as long as they are mapped; those of a file that is
    truncated are lost, and reading them ends the process. No other file is touched.

    Raises:
        SaveError: The file cannot be removed.
    """
    try:
        found = Path(path).stat()
    except OSError:  # there is none, or the writer will report it
        return
    inode = (found.st_dev, found.st_ino)
    if not any(region.identity[:2] == inode for region in list(_regions.values())):
        return
    try:
        Path(path).resolve().unlink()  # a symbolic link stays, and is written through
    except OSError as err:
        raise SaveError(
            f"{os.fspath(path)!r} is in use by a program that was loaded from it, and cannot be "
            f"replaced: {err}",
            "a file in a folder that is writable",
            "save to another path",
        ) from err


def drop_pages(buffer: Any) -> None:
    """Drop the resident pages of a buffer in a mapped file; they are read again on access.

    Has no effect on other memory. Must not be used for memory that was written: the changes would
    be lost.
    """
    extent = _extent(buffer)
    region = None if extent is None else region_at(*extent)
    memory = None if region is None else region.memory()
    if extent is None or region is None or memory is None or not hasattr(memory, "madvise"):
        return
    start = extent[0] - region.address
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (start + extent[1]) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        with contextlib.suppress(OSError, ValueError):
            memory.madvise(mmap.MADV_DONTNEED, first, end - first)


def sha256_of(buffer: Any) -> str:
    """Return the hexadecimal SHA-256 of a buffer; pages of a mapped file are dropped again."""
    view = memoryview(buffer)
    view = view.cast("B") if view.nbytes else memoryview(b"")
    digest = hashlib.sha256()
    for start in range(0, view.nbytes, _CHUNK_BYTES):
        part = view[start : start + _CHUNK_BYTES]
        digest.update(part)
        drop_pages(part)
    return digest.hexdigest()


def when_unused(memory: mmap.mmap, call: Callable[[], Any]) -> None:
    """Call a function when nothing uses a mapping any more, or the process ends."""
    owner = os.getpid()
    weakref.finalize(memory, lambda: call() if os.getpid() == owner else None)


def _extent(buffer: Any) -> tuple[int, int] | None:
    """Return address and size of a buffer; None if it is read-only, which no mapping is."""
    view = memoryview(buffer)
    if view.readonly or not view.nbytes:
        return None
    return ctypes.addressof(ctypes.c_char.from_buffer(view)), view.nbytes


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
