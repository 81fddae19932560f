"""Files that are replaced: by several writers at once, behind links, and never what is no file."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest
from tiny import python

from portrt.errors import SaveError
from portrt.format import atomic
from portrt.format.atomic import replacing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")

SIZE = 100_000


def write(target: Path, content: bytes) -> None:
    with replacing(target) as file:
        file.write(content)


def test_threads_that_write_to_one_path(tmp_path: Path) -> None:
    target, start, errors = tmp_path / "a", threading.Barrier(4), []

    def work(index: int) -> None:
        start.wait()
        for _ in range(20):
            try:
                write(target, bytes([index]) * SIZE)
                content = target.read_bytes()
                assert content == content[:1] * SIZE
            except BaseException as err:
                errors.append(err)

    umask = os.umask(0o027)
    try:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        assert os.umask(umask) == 0o027
    assert errors == []
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_processes_that_write_to_one_path(tmp_path: Path) -> None:
    done = python(
        """
        import os, sys
        from pathlib import Path
        from portrt.format.atomic import replacing

        target = Path(sys.argv[1])
        for index in range(4):
            if os.fork() == 0:
                status = 1
                try:
                    for _ in range(20):
                        with replacing(target) as file:
                            file.write(bytes([index]) * 100_000)
                        content = target.read_bytes()
                        assert content == content[:1] * 100_000
                    status = 0
                finally:
                    os._exit(status)
        print([os.wait()[1] for _ in range(4)])
        """,
        str(tmp_path / "a"),
    )
    assert done.stdout == "[0, 0, 0, 0]\n", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_being_removed_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes the new file for abandoned, before it is locked."""
    real, others = atomic._lock, []

    def late(handle: int) -> bool | None:
        if not others:
            (part,) = tmp_path.iterdir()
            others.append(os.open(part, os.O_RDWR))
            assert real(others[0])
        return real(handle)

    monkeypatch.setattr(atomic, "_lock", late)
    with replacing(tmp_path / "a") as file:
        assert len(list(tmp_path.iterdir())) == 2
        file.write(b"whole")
    os.close(others[0])
    assert (tmp_path / "a").read_bytes() == b"whole"
    write(tmp_path / "a", b"next")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_lock", lambda _: None)
    other = tmp_path / ".a.x.part"
    other.write_bytes(b"perhaps in use")
    write(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert other.read_bytes() == b"perhaps in use"


LINKS = {
    "relative": ["file"],
    "in another folder": ["folder/file"],
    "chain": ["other", "folder/file"],
    "to nothing": ["folder/new"],
}


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
@pytest.mark.parametrize("name", LINKS)
def test_what_a_link_refers_to_is_replaced(tmp_path: Path, name: str, absolute: bool) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    for place in ("file", "folder/file"):
        (tmp_path / place).write_bytes(b"old")
        (tmp_path / place).chmod(0o604)
    at = link
    for target in LINKS[name]:
        at.symlink_to(tmp_path / target if absolute else target)
        at = tmp_path / target
    before = os.readlink(link)
    write(link, b"new")
    assert os.readlink(link) == before
    assert at.read_bytes() == b"new"
    assert not at.is_symlink()
    if name != "to nothing":
        assert stat.S_IMODE(at.stat().st_mode) == 0o604
    assert not list(tmp_path.rglob("*.part"))


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "a", b"x")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "link"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device", "descriptor"])
def test_what_is_no_file_is_refused_and_stays(
    tmp_path: Path, kind: str, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path, open_ones = Path("thing"), []
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.close()
    elif kind == "device":
        open_ones = list(os.openpty())
        path = Path(os.ttyname(open_ones[1]))
    else:
        if not Path("/proc/self/fd").exists():
            pytest.skip("there is no /proc")
        open_ones = [os.open("removed", os.O_RDWR | os.O_CREAT)]
        Path("removed").unlink()
        path = Path(f"/proc/self/fd/{open_ones[0]}")
    before = path.stat()
    if linked:
        Path("link").symlink_to(path)
        path = Path("link")
    fact = "is a file without a name" if kind == "descriptor" else f"is a {kind}"
    with pytest.raises(SaveError, match=fact) as caught:
        write(path, b"x")
    assert str(path) in caught.value.happened
    assert os.path.samestat(path.stat(), before)
    assert not list(tmp_path.glob(".*"))
    for handle in open_ones:
        os.close(handle)
