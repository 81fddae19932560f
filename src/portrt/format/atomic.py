"""Atomic replacement of files, and copying of bytes between files. Imports no torch."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from portrt.errors import SaveError
from portrt.format.file_kind import irregular

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: open files cannot be removed; abandoned ones stay
    fcntl = None

_CHUNK_BYTES = 8 << 20

# Called with the number of bytes after each step; a progress bar.
OnBytes = Callable[[int], None]
# Writes a whole file, and reports the bytes of each step.
Write = Callable[[IO[bytes], OnBytes], None]


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to `target` and replace it when the block ends without error.

    Where `target` is a symbolic link, the file that it refers to is replaced, and the link stays.
    Any number of processes and threads may write to one path: each file is complete, and that of
    the last one stays. A process that is killed within the block leaves the temporary file
    `.NAME.*.part`. The next process that writes to `target` removes it.

    Raises:
        SaveError: There is a folder, a device or the like at `target`.
        OSError: The file cannot be written.
    """
    target, old = _regular(target)
    _remove_abandoned(target)
    handle, partial = _partial_file(target, 0o666 if old is None else 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if old is not None:
                partial.chmod(old.st_mode & 0o7777)
            if fcntl is None:  # Windows renames no open file
                file.close()
            partial.replace(target)  # before the lock ends
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _regular(target: Path) -> tuple[Path, os.stat_result | None]:
    """Follow symbolic links; return the path of the file, and its status if it exists.

    Raises:
        SaveError: There is something else than a file.
        OSError: The links are a circle.
    """
    try:
        found = target.stat()
    except FileNotFoundError:
        return (target.resolve() if target.is_symlink() else target), None
    kind, real = irregular(found.st_mode), target
    if not kind and target.is_symlink():
        real = target.resolve()
        if not real.exists():  # such as a descriptor in /proc of a file that was removed
            kind = "a file without a name"
    if kind:
        raise SaveError(
            f"{str(target)!r} is {kind}",
            "a file, which is replaced, or a path where nothing is",
            "correct the path, or write to a file and copy it there",
        )
    return real, found


def _partial_file(target: Path, mode: int) -> tuple[int, Path]:
    """Create a temporary file, locked until it is closed: the lock ends with the process.

    Args:
        target: The file that it will replace.
        mode: Its permissions, less those in the umask.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            handle = os.open(path, flags, mode)
        except FileExistsError:
            continue
        # Before the lock is taken, another process may consider the file abandoned and remove it.
        if _lock(handle) is not False and path.exists():
            return handle, path
        os.close(handle)


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files for `target` that no process holds a lock on."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            handle = os.open(path, flags)
            try:
                if _lock(handle):
                    path.unlink()
            finally:
                os.close(handle)


def _lock(handle: int) -> bool | None:
    """Lock a file; return False if someone else has locked it, None if there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


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
