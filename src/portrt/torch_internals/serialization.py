"""torch's serializer of programs: one thread at a time, and over mapped files.

torch keeps the state of its deserializer in a global variable, and refuses to begin while another
thread is in it.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import IO, Any, TypeVar

import torch
from torch.export import ExportedProgram

from portrt import forks
from portrt.format.memory_map import set_aside

Result = TypeVar("Result")

# Held around every use of torch's serializer. Reentrant: what is read may import a module that
# loads another program.
_lock = forks.renewed(threading.RLock())
# A limit, so that an import that waits for a load that waits for the import ends in an error.
_PATIENCE_S = 300.0
_PAUSE_S = 0.005
_STATE = "_CURRENT_DESERIALIZER"


def save_program(program: ExportedProgram, file: str | os.PathLike[str] | IO[bytes]) -> None:
    """Call `torch.export.save`, one thread at a time.

    Raises:
        TimeoutError: Another thread was in torch's serializer for five minutes.
    """
    one_at_a_time(lambda: torch.export.save(program, file))


def never_truncate_mapped_files() -> None:
    """Make torch's writer write a new file instead of truncating one that is mapped here.

    It opens its file before it reads the program. If that is the file that the program is mapped
    from, the program's tensors are lost, and reading them ends the process.

    Its class is changed, once.
    """
    from torch.export.pt2_archive._package import PT2ArchiveWriter

    writer: Any = PT2ArchiveWriter
    opens = writer.__init__
    if getattr(opens, "keeps_mapped_files", False):
        return

    @functools.wraps(opens)
    def init(self: Any, archive_path_or_buffer: Any) -> None:
        if isinstance(archive_path_or_buffer, (str, os.PathLike)):
            set_aside(archive_path_or_buffer)
        opens(self, archive_path_or_buffer)

    init.keeps_mapped_files = True  # type: ignore[attr-defined]
    writer.__init__ = init


def one_at_a_time(call: Callable[[], Result]) -> Result:
    """Call a function that uses torch's serializer, while no other thread does.

    Args:
        call: The function; called again where torch refuses to begin, because a thread that called
            torch itself was faster.

    Raises:
        TimeoutError: Another thread was in it for five minutes.
    """
    # First, so that no import waits for another thread that waits for the lock.
    from torch._export.serde import serialize
    from torch.export.pt2_archive import _package  # noqa: F401

    until = time.monotonic() + _PATIENCE_S
    if not _lock.acquire(timeout=_PATIENCE_S):
        raise _busy()
    try:
        outer = getattr(serialize, _STATE, None)
        if outer is not None and _is_called_by(serialize, sys._getframe()):
            setattr(serialize, _STATE, None)
            try:
                return call()
            finally:
                setattr(serialize, _STATE, outer)
        while True:
            try:
                if getattr(serialize, _STATE, None) is None:
                    return call()
            except AssertionError as err:
                if not _was_refused(serialize, err):
                    raise
            if time.monotonic() > until:
                raise _busy()
            time.sleep(_PAUSE_S)
    finally:
        _lock.release()


def _busy() -> TimeoutError:
    return TimeoutError(f"another thread was in torch's serializer for {_PATIENCE_S:.0f} s")


def _is_called_by(serialize: ModuleType, frame: FrameType | None) -> bool:
    """Return whether torch's deserializer is among the callers of a frame."""
    code = serialize.GraphModuleDeserializer.deserialize.__code__
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _was_refused(serialize: ModuleType, err: AssertionError) -> bool:
    """Return whether torch's deserializer itself, and nothing that it calls, raised this error.

    Its only assertion of its own is that no other thread is in it.
    """
    trace = err.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = serialize.GraphModuleDeserializer.deserialize.__code__
    return trace is not None and trace.tb_frame.f_code is code


def _forget_other_threads() -> None:
    """In a forked child: no other thread is in torch's deserializer any more."""
    serialize = sys.modules.get("torch._export.serde.serialize")
    if serialize is None or not getattr(serialize, _STATE, None):
        return
    if not _is_called_by(serialize, sys._getframe()):
        setattr(serialize, _STATE, None)


forks.in_child(_forget_other_threads)
