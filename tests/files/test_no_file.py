"""What is no regular file is refused before it is opened: a pipe or a device may never end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import portrt
from portrt import files
from portrt.errors import LoadError
from portrt.files.read_inputs import read_inputs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")

READERS: dict[str, Callable[[str], Any]] = {
    "load": portrt.load,
    "inspect": portrt.inspect,
    "check": lambda path: files.check(path, "sm=89,tensorrt_rtx=1.7"),
    "verify": files.verify,
    "profile": files.profile,
    "strip": lambda path: files.strip(path, "onnxruntime"),
    "extract": lambda path: files.extract(path, "source", f"{path}.out"),
    "add_engine": lambda path: files.add_engine(path, "onnxruntime"),
    "from_plan": lambda path: portrt.from_plan(path, {"x": portrt.Input((1, 2))}, outputs=list),
    "inputs": lambda path: read_inputs((path,), ["x"]),
}


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A reader that waits for a pipe fails instead of waiting forever."""

    def fail(*_: Any) -> None:
        raise TimeoutError("it waited for the file")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", READERS)
def test_it_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(LoadError, match=f"cannot be read: it is a {kind}") as caught:
        READERS[name](str(path))
    assert str(path) in caught.value.happened
