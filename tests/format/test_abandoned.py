"""What a killed save left behind goes with the next save to that name, and nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from portrt.format import atomic
from portrt.format.atomic import replacing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")

# It hangs until it is killed, or the test is.
WRITES = """
import sys
from pathlib import Path
from portrt.format.atomic import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def writer(target: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "writing\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.part"))


@pytest.mark.parametrize("name", ["model.pt2", "m[o]del*.pt2"])
def test_a_killed_writer_is_cleaned_up_after(name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    process = writer(target)
    kill(process)
    (left,) = parts(tmp_path)
    with replacing(tmp_path / "other.pt2") as file:
        file.write(b"other")
    assert parts(tmp_path) == [left]
    with replacing(target) as file:
        file.write(b"whole")
    assert parts(tmp_path) == []
    assert target.read_bytes() == b"whole"


def test_a_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "model.pt2"
    process = writer(target)
    try:
        before = parts(tmp_path)
        with replacing(target) as file:
            file.write(b"mine")
        assert parts(tmp_path) == before
        assert target.read_bytes() == b"mine"
    finally:
        kill(process)


def test_a_file_that_is_removed_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = atomic._lock
    removed: list[str] = []

    def late(handle: int) -> bool:
        if not removed:
            removed.extend(parts(tmp_path))
            (tmp_path / removed[0]).unlink()
        return real(handle)

    monkeypatch.setattr(atomic, "_lock", late)
    with replacing(tmp_path / "model.pt2") as file:
        file.write(b"whole")
    assert (tmp_path / "model.pt2").read_bytes() == b"whole"
    assert len(removed) == 1


def test_a_link_of_such_a_name_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"kept")
    link = tmp_path / ".model.pt2.x.part"
    os.symlink(precious, link)
    with replacing(tmp_path / "model.pt2") as file:
        file.write(b"whole")
    assert precious.read_bytes() == b"kept"
    assert link.is_symlink()
