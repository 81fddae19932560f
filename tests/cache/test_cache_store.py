"""The store: whole entries or none, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import pytest

from portrt.cache import store
from portrt.cache.key import Key
from portrt.cache.store import Cache


def key(name: str) -> Key:
    return Key.of("engine", {"name": name})


def put(cache: Cache, name: str, data: bytes) -> bool:
    return cache.put(key(name), {"backend": name}, lambda path: path.write_bytes(data))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10_000)


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_warned", set())


def files_of(folder: Path) -> list[str]:
    """What an entry's readers see: no locks, and no temporary folders."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "locks" not in path.parts
    )


def test_what_was_put_is_got(cache: Cache) -> None:
    assert cache.get(key("a")) is None
    assert put(cache, "a", b"bytes")
    found = cache.get(key("a"))
    assert found is not None
    assert found[1] == b"bytes"
    assert found[0].meta == {"backend": "a"}
    assert found[0].sha256 == hashlib.sha256(b"bytes").hexdigest()
    assert cache.get(key("b")) is None


def test_another_cache_object_finds_it_and_nothing_else_is_left(cache: Cache) -> None:
    put(cache, "a", b"bytes")
    assert Cache(cache.folder.parent, 10_000).get(key("a")) is not None
    assert files_of(cache.folder) == [f"{key('a').name}/data", f"{key('a').name}/entry.json"]


def test_the_first_of_two_stays_unless_it_is_to_be_replaced(cache: Cache) -> None:
    put(cache, "a", b"first")
    assert not put(cache, "a", b"second")
    assert cache.get(key("a"))[1] == b"first"  # type: ignore[index]
    assert cache.put(key("a"), {}, lambda path: path.write_bytes(b"third"), replace=True)
    assert cache.get(key("a"))[1] == b"third"  # type: ignore[index]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Any] = {
    "data flipped": lambda folder: flip(folder / "data", 2),
    "data cut": lambda folder: os.truncate(folder / "data", 3),
    "data longer": lambda folder: (folder / "data").write_bytes(b"bytes and more"),
    "data gone": lambda folder: (folder / "data").unlink(),
    "data a folder": lambda folder: ((folder / "data").unlink(), (folder / "data").mkdir()),
    "entry flipped": lambda folder: flip(folder / "entry.json", 90),
    "entry digest flipped": lambda folder: flip(folder / "entry.json", 0),
    "entry cut": lambda folder: os.truncate(folder / "entry.json", 70),
    "entry empty": lambda folder: os.truncate(folder / "entry.json", 0),
    "entry gone": lambda folder: (folder / "entry.json").unlink(),
    "entry no text": lambda folder: (folder / "entry.json").write_bytes(b"\xff\xfe\n\xff"),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("read", ["get", "get_file", "check"])
def test_a_damaged_entry_is_removed_and_can_be_written_again(
    cache: Cache, how: str, read: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(cache, "a", b"bytes")
    put(cache, "b", b"other")
    folder = cache.folder / key("a").name
    DAMAGE[how](folder)
    if read == "check":
        wrong = dict(cache.check())
        assert wrong[key("a").name] and wrong[key("b").name] == ""
    else:
        assert getattr(cache, read)(key("a")) is None
        assert "is removed" in caplog.text
    assert not folder.exists()
    assert put(cache, "a", b"bytes")
    assert cache.get(key("a"))[1] == b"bytes"  # type: ignore[index]
    assert cache.get(key("b"))[1] == b"other"  # type: ignore[index]


def test_an_entry_under_the_name_of_another_is_not_believed(cache: Cache) -> None:
    put(cache, "a", b"bytes")
    (cache.folder / key("a").name).rename(cache.folder / key("b").name)
    assert cache.get(key("b")) is None
    assert not (cache.folder / key("b").name).exists()


def test_the_longest_unused_goes_first(cache: Cache) -> None:
    for index, name in enumerate("abc"):
        put(cache, name, bytes(2500))
        os.utime(cache.folder / key(name).name / "entry.json", (1000 + index, 1000 + index))
    assert cache.get(key("a")) is not None  # used just now
    put(cache, "d", bytes(2500))
    assert {entry.meta["backend"] for entry in cache.entries()} == {"a", "c", "d"}
    put(cache, "e", bytes(9000))
    assert [entry.meta["backend"] for entry in cache.entries()] == ["e"]


def test_what_is_larger_than_the_limit_is_not_kept(cache: Cache) -> None:
    put(cache, "a", b"bytes")
    assert not put(cache, "b", bytes(10_001))
    assert [entry.meta["backend"] for entry in cache.entries()] == ["a"]
    assert len(files_of(cache.folder)) == 2


def test_prune_and_clear(cache: Cache) -> None:
    for index, name in enumerate("abc"):
        put(cache, name, bytes(1000))
        os.utime(cache.folder / key(name).name / "entry.json", (1000 + index, 1000 + index))
    assert cache.evict(3000) == [key("a").name]
    (cache.folder / "tmp-of-a-killed-process").mkdir()
    assert sorted(cache.clear()) == sorted([key("b").name, key("c").name])
    assert cache.entries() == []
    assert files_of(cache.folder) == []


def test_a_file_stays_readable_after_its_entry_was_evicted(cache: Cache) -> None:
    put(cache, "a", b"bytes")
    entry = cache.get_file(key("a"))
    assert entry is not None
    with entry.data.open("rb") as file:
        cache.clear()
        assert file.read() == b"bytes"


@pytest.mark.parametrize("place", ["under a file", "/proc"])
def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache" if place == "under a file" else Path("/proc/portrt")
    for _ in range(2):
        cache = Cache(folder, 10_000)
        assert not put(cache, "a", b"bytes")
        assert cache.get(key("a")) is None
        assert cache.entries() == [] and cache.check() == [] and cache.clear() == []
        with cache.building(key("a"), 1.0):
            pass
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be written" in caplog.text and "PORTRT_CACHE_DIR" in caplog.text


def test_a_read_only_cache_is_still_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """root writes whatever the mode says, so the refusal is made by hand."""
    put(cache, "a", b"bytes")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(store.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(store.tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(store.os, "utime", refuse)
    second = Cache(cache.folder.parent, 10_000)
    assert not second.writable
    assert second.get(key("a"))[1] == b"bytes"  # type: ignore[index]
    assert not put(second, "b", b"other")


def test_a_full_disk_is_said_once_and_leaves_nothing(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    put(cache, "a", b"bytes")

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"rest")  # the kernel's own ENOSPC

    for _ in range(2):
        assert not cache.put(key("b"), {}, write)
    assert caplog.text.count("No space left on device") == 1
    assert [entry.meta["backend"] for entry in cache.entries()] == ["a"]
    assert len(files_of(cache.folder)) == 2


# It hangs until it is killed, or the test is.
KILLED = """
import os, sys
from pathlib import Path
from portrt.cache.key import Key
from portrt.cache import store
folder, step = Path(sys.argv[1]), sys.argv[2]
cache = store.Cache(folder, 10_000_000)

def hang(*args, **kwargs):
    print("here", flush=True)
    sys.stdin.read()

def write(path):
    with path.open("wb") as file:
        for index in range(1000):
            file.write(b"new!" * 250)
            if step == "data" and index == 500:
                file.flush()
                hang()

if step == "entry":
    store.write_entry = hang
elif step == "rename":
    cache._publish = hang
elif step == "replace":
    real = cache._remove
    cache._remove = lambda path: (real(path), hang())
key = Key.of("engine", {"name": "a"})
if step == "lock":
    with cache.building(key, 60):
        hang()
cache.put(key, {}, write, replace=True)
hang()
"""


def locked(cache: Cache, name: str) -> bool:
    """Whether somebody holds the lock of a key."""
    lock = filelock.FileLock(cache.folder / "locks" / f"{key(name).name}.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    return False


@pytest.mark.parametrize("step", ["lock", "data", "entry", "rename", "replace", "done"])
@pytest.mark.parametrize("before", [b"", b"old"], ids=["empty", "old entry"])
def test_a_killed_writer_leaves_the_old_entry_or_the_new_one_or_none(
    tmp_path: Path,
    step: str,
    before: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = Cache(tmp_path, 10_000_000)
    if before:
        put(cache, "a", before)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), step],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()

    found = cache.get(key("a"))
    wanted = {"done": b"new!" * 250_000, "replace": b""}.get(step, before)
    assert (found[1] if found else b"") == wanted
    assert all(wrong == "" for _, wrong in cache.check())
    caplog.clear()
    with cache.building(key("a"), 0):  # the lock died with its holder: it is free at once
        assert locked(cache, "a")
        put(cache, "a", b"mine")
    assert caplog.records == []
    assert cache.get(key("a")) is not None
    monkeypatch.setattr(store, "_TEMPORARY_AGE_S", -1.0)
    put(cache, "b", b"later")
    assert not list(cache.folder.glob("tmp-*"))


# Python tells of each step in the file system before it is taken; writing tells of its half.
KILLER = """
import itertools, os, signal, sys
from pathlib import Path
from portrt.cache.key import Key
from portrt.cache.store import Cache

folder, kill_at = Path(sys.argv[1]), 0
cache = Cache(folder, 50_000)
steps = itertools.count(1)

def step(event, args):
    if kill_at and event.partition(".")[0] in ("open", "os", "shutil", "tempfile", "test"):
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

def write(path, data):
    with path.open("wb") as file:
        file.write(data[:1000])
        file.flush()
        sys.audit("test.half")
        file.write(data[1000:])

sys.addaudithook(step)
for at in itertools.count(1):
    child = os.fork()
    if child == 0:
        kill_at = at
        for turn in range(5):
            data = bytes([turn]) * 20_000
            key = Key.of("engine", {"name": turn % 4})
            cache.put(key, {"turn": turn}, lambda path: write(path, data), replace=True)
            cache.get(key)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    wrong = [wrong for _, wrong in cache.check() if wrong]
    assert not wrong, (at, wrong)
    for entry in cache.entries():
        turn = entry.meta["turn"]
        assert entry.name == Key.of("engine", {"name": turn % 4}).name, at
        assert entry.data.read_bytes() == bytes([turn]) * 20_000, at
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(at)
"""


def test_killing_at_any_moment_leaves_whole_entries(tmp_path: Path) -> None:
    """At each step of puts that replace, and evict others, and of the reading between them."""
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_a_lock_that_is_held_too_long_is_not_waited_for(
    cache: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []
    real = filelock.FileLock.acquire

    def acquire(self: Any, timeout: float | None = None, *, blocking: bool = True) -> Any:
        """Nobody releases it meanwhile: what would be waited for is known at once."""
        if blocking:
            waits.append(timeout)
        return real(self, blocking=False)

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    other = Cache(cache.folder.parent, 10_000)
    with cache.building(key("a"), 5):
        with other.building(key("a"), 0.2):
            assert waits == [5, 0.2]
            (said,) = caplog.messages
            assert said.endswith(
                f"{key('a').name}.lock is locked for more than 0.2 s; continuing without"
            )
        with other.building(key("b"), 5):
            assert locked(cache, "b")
    assert caplog.messages == [said]
    assert waits == [5, 0.2, 5]


def test_nothing_is_logged_for_a_plain_miss(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="portrt"):
        cache.get(key("a"))
    assert caplog.records == []
