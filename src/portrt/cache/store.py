"""Entries on disk: folders that are created atomically, checked when read, and evicted."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from portrt.cache.entry import (
    DATA,
    ENTRY,
    BadEntryError,
    Entry,
    check_data,
    read_data,
    read_entry,
    use_of,
    write_entry,
)
from portrt.cache.key import Key, differing_parts
from portrt.cache.location import CPP, INDUCTOR, TIMING, cache_folder, cache_limit_bytes

logger = logging.getLogger(__name__)

FORMAT = 1
_LOCKS = "locks"
_TEMPORARY = "tmp-"
# Longer than any write takes: older temporary folders were left by processes that were killed.
_TEMPORARY_AGE_S = 3600.0
_LOCK_AGE_S = 7 * 86400.0

_warned: set[str] = set()


class Cache:
    """A folder of entries, shared by processes.

    A folder that cannot be written is only read, with one warning. No method raises for a disk
    error: a cache that fails behaves like an empty one.

    Args:
        folder: The folder; created if it does not exist.
        limit_bytes: Limit of all entries together; the least recently used ones are evicted.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder / f"v{FORMAT}"
        self.limit_bytes = limit_bytes
        self.writable = self._is_writable()

    def _is_writable(self) -> bool:
        try:
            (self.folder / _LOCKS).mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder / _LOCKS):
                return True
        except OSError as err:
            self._warn_once("it cannot be written", err)
            return False

    def _warn_once(self, what: str, err: BaseException) -> None:
        """Log a warning once per process and folder."""
        key = f"{self.folder} {what}"
        if key not in _warned:
            _warned.add(key)
            logger.warning(
                "the cache in %s is not used, because %s: %s. Set PORTRT_CACHE_DIR to another "
                "folder, or to 'off'",
                self.folder,
                what,
                err,
            )

    def get(self, key: Key) -> tuple[Entry, bytes] | None:
        """Return an entry and its bytes, after a check of the digest; None if there is none."""
        return self._checked(key, read_data)

    def get_file(self, key: Key) -> Entry | None:
        """Return an entry after a check of its file, which may be evicted afterwards."""
        found = self._checked(key, check_data)
        return None if found is None else found[0]

    def _checked(self, key: Key, read: Callable[[Entry], Any]) -> tuple[Entry, Any] | None:
        folder = self.folder / key.name
        try:
            entry = read_entry(folder)
            found = read(entry)
        except (FileNotFoundError, NotADirectoryError):  # does not exist, or was just evicted
            if folder.is_dir():
                logger.warning("the cache entry %s is removed: one of its files is missing", folder)
                self._remove(folder)
            return None
        except (BadEntryError, OSError) as err:
            logger.warning("the cache entry %s is removed: %s", folder, err)
            self._remove(folder)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / ENTRY)
        logger.debug("cache hit: %s", key.name)
        return entry, found

    def explain_miss(self, key: Key) -> None:
        """Log all parts of a key, and the parts in which the nearest entry differs, at DEBUG."""
        if not logger.isEnabledFor(logging.DEBUG):
            return
        key.log()
        others = [entry.parts for entry in self.entries() if entry.kind == key.kind]
        nearest = min((differing_parts(key.parts, parts) for parts in others), key=len, default=[])
        why = f"the nearest differs in {', '.join(nearest)}" if nearest else "no similar entry"
        logger.debug("cache miss: %s: %s", key.name, why)

    def put(
        self,
        key: Key,
        meta: Mapping[str, Any],
        write: Callable[[Path], Any],
        *,
        replace: bool = False,
    ) -> bool:
        """Store an entry, and return whether it was stored.

        Args:
            key: The key of the entry.
            meta: Metadata, as plain JSON values.
            write: Writes the data to the given path.
            replace: Whether to replace an existing entry.
        """
        if not self.writable:
            return False
        self._sweep()
        workdir: Path | None = None
        try:
            workdir = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.folder))
            write(workdir / DATA)
            size = (workdir / DATA).stat().st_size
            if size > self.limit_bytes:
                logger.info("%s is not cached: it has %d bytes", key.name, size)
                return False
            write_entry(workdir, key, meta, size)
            return self._publish(workdir, self.folder / key.name, replace=replace)
        except Exception as err:  # torch raises its own errors for a full disk
            self._warn_once("an entry could not be written", err)
            return False
        finally:
            if workdir is not None:
                shutil.rmtree(workdir, ignore_errors=True)
            self.evict(self.limit_bytes)

    def _publish(self, workdir: Path, folder: Path, *, replace: bool) -> bool:
        if replace:
            self._remove(folder)
        try:
            workdir.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            return False  # another process was first, with an equal entry
        return True

    @contextlib.contextmanager
    def building(self, key: Key, timeout_s: float) -> Iterator[None]:
        """Hold the lock of a key: other processes that build the same entry wait."""
        lock = self._acquire(self.folder / _LOCKS / f"{key.name}.lock", timeout_s)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _acquire(self, path: Path, timeout_s: float) -> Any:
        """Acquire a lock; None if that fails: then two processes may do the same work."""
        if not self.writable:
            return None
        import filelock

        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=timeout_s)
        except filelock.Timeout:
            logger.warning("%s is locked for more than %g s; continuing without", path, timeout_s)
            return None
        except (OSError, NotImplementedError) as err:
            self._warn_once("its files cannot be locked", err)
            return None
        return lock

    def entries(self) -> list[Entry]:
        """Return all readable entries, most recently used first."""
        found = []
        for folder in self._folders():
            with contextlib.suppress(BadEntryError, OSError):
                found.append(read_entry(folder))
        return sorted(found, key=lambda entry: -entry.used)

    def _folders(self) -> list[Path]:
        try:
            names = sorted(path for path in self.folder.iterdir() if path.is_dir())
        except OSError:
            return []
        others = (_LOCKS, TIMING, INDUCTOR, CPP)
        return [p for p in names if p.name not in others and not p.name.startswith(_TEMPORARY)]

    def check(self) -> list[tuple[str, str]]:
        """Check every entry and remove damaged ones.

        Returns:
            (name, damage) of every entry, with "" for intact ones.
        """
        found = []
        for folder in self._folders():
            wrong = ""
            try:
                check_data(read_entry(folder))
            except (BadEntryError, OSError) as err:
                wrong = str(err)
                self._remove(folder)
            found.append((folder.name, wrong))
        return found

    def evict(self, limit_bytes: int) -> list[str]:
        """Remove the least recently used entries until the others fit in `limit_bytes`.

        Args:
            limit_bytes: Limit of all entries together; 0 removes all.

        Returns:
            The names of the removed entries.
        """
        if not self.writable:
            return []
        sizes = [
            (used, size, folder) for folder in self._folders() for used, size in use_of(folder)
        ]
        total = sum(size for _, size, _ in sizes)
        removed = []
        for _, size, folder in sorted(sizes):
            if total <= limit_bytes and limit_bytes > 0:
                break
            self._remove(folder)
            total -= size
            removed.append(folder.name)
            logger.debug("evicted %s", folder.name)
        return removed

    def _remove(self, folder: Path) -> None:
        """Rename the folder, then delete it, so that no process finds an incomplete entry."""
        with contextlib.suppress(OSError):
            workdir = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.folder))
            with contextlib.suppress(OSError):
                folder.rename(workdir / "removed")
            shutil.rmtree(workdir, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove temporary folders and locks of killed processes."""
        now = time.time()
        old = [(path, _TEMPORARY_AGE_S) for path in self.folder.glob(f"{_TEMPORARY}*")]
        old += [(path, _LOCK_AGE_S) for path in self.folder.glob(f"{_LOCKS}/*.lock")]
        for path, age in old:
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime < age:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()

    def clear(self) -> list[str]:
        """Remove all entries and temporary folders, and return the names of the entries."""
        removed = self.evict(0)
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)
        return removed


def open_cache(cache_dir: str | None = None) -> Cache | None:
    """Return the cache in a folder, or None if it is off.

    Args:
        cache_dir: The option of `compile`; None means the environment's or the user's folder.
    """
    folder = cache_folder(cache_dir)
    return None if folder is None else _cache_in(folder, cache_limit_bytes())


@lru_cache
def _cache_in(folder: Path, limit_bytes: int) -> Cache:
    return Cache(folder, limit_bytes)
