"""Atomic replacement of files, and copying of bytes between files. Imports no torch."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

_CHUNK_BYTES = 8 << 20

# Called with the number of bytes after each step; a progress bar.
OnBytes = Callable[[int], None]
# Writes a whole file, and reports the bytes of each step.
Write = Callable[[IO[bytes], OnBytes], None]


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to `target` and replace it when the block ends without error.

    A process that is killed within the block leaves the temporary file `.NAME.*.part`. The next
    process that writes to `target` removes it.
    """
    _remove_abandoned(target)
    handle, partial = _partial_file(target)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(_mode_for(target))
        partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _partial_file(target: Path) -> tuple[int, Path]:
    """Create a temporary file, locked while it is open: the lock ends with the process."""
    while True:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".part", dir=target.parent
        )
        # Before the lock is taken, another process may consider the file abandoned and remove it.
        if not _lock(handle) or Path(name).exists():
            return handle, Path(name)
        os.close(handle)


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files for `target` that no process holds a lock on."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                if _lock(handle):
                    path.unlink()
            finally:
                os.close(handle)


def _lock(handle: int) -> bool:
    """Try to lock a file; return whether it is locked now, False if locks are unsupported."""
    try:
        import fcntl
    except ImportError:  # Windows: open files cannot be removed; abandoned ones stay
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _mode_for(target: Path) -> int:
    """Return the permissions of the file, or those that a new file would get."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def copy_bytes(
    source: IO[bytes],
    offset: int,
    size: int,
    target: IO[bytes],
    on_bytes: OnBytes = lambda _count: None,
) -> None:
    """Append a range of one file to another, inside the kernel if possible.

    Args:
        source: File open for reading; its position is changed.
        offset: First byte of the range.
        size: Number of bytes.
        target: File open for writing. It is flushed first; a file without a descriptor is written
            in chunks.
        on_bytes: Called with the number of bytes after each step.

    Raises:
        OSError: The source ends within the range, or the target cannot be written.
    """
    target.flush()
    copied = _copy_in_kernel(source, offset, size, target, on_bytes)
    source.seek(offset + copied)
    while copied < size:
        part = source.read(min(_CHUNK_BYTES, size - copied))
        if not part:
            raise OSError(f"the file that is copied from ends at byte {offset + copied}")
        write_all(target, part)
        on_bytes(len(part))
        copied += len(part)


def write_all(file: IO[bytes], data: Any) -> int:
    """Write all of a buffer, in several steps for a raw file; return its number of bytes."""
    view = memoryview(data)
    total = view.nbytes
    while view.nbytes:
        view = view[file.write(view) :]
    return total


def _copy_in_kernel(
    source: IO[bytes], offset: int, size: int, target: IO[bytes], on_bytes: OnBytes
) -> int:
    """Copy inside the kernel; return the number of bytes copied, which may be too few."""
    copy_file_range: Any = getattr(os, "copy_file_range", None)
    copied = 0
    # Fails if a file has no descriptor (ValueError), across file systems with old kernels, and on
    # some file systems. If the disk is full, the caller's loop fails again and reports it.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        into, out_of = target.fileno(), source.fileno()
        while copy_file_range is not None and copied < size:
            wanted = min(_CHUNK_BYTES, size - copied)
            count = copy_file_range(out_of, into, wanted, offset_src=offset + copied)
            if count == 0:
                break
            copied += count
            on_bytes(count)
    return copied
