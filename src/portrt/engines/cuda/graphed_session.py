"""CUDA graphs of a session: recorded for each combination of sizes, replayed in one launch."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from portrt import torch_internals
from portrt.engines.base import Session
from portrt.engines.cuda.captured_call import StreamPool
from portrt.errors import EngineError, OutOfProfileError

logger = logging.getLogger(__name__)

_MAX_SEEN = 1024


class Recording(Protocol):
    """A session's run for some sizes, recorded on a stream."""

    def replay(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
        """Run on the recording's stream, which is current; None if these inputs cannot."""
        ...

    def give_back(self) -> None:
        """Release what the recording holds besides memory."""
        ...


# Records the run for these inputs, with outputs of these shapes, on the stream of this handle.
Record = Callable[[StreamPool, int, Sequence[torch.Tensor], Sequence[tuple[int, ...]]], Recording]


class GraphedSession(Session):
    """A session whose calls replay CUDA graphs, at any addresses of the caller's tensors.

    The first call with some sizes on a stream runs as usual, the second records. The least recently
    used recording is dropped.

    Args:
        session: Runs what cannot be recorded.
        record: Records a run of it; raises EngineError or RuntimeError where that is impossible.
        device: Its GPU, with an index.
        name: Name of the block.
        max_recordings: Number of recordings that are kept.
        refused: Whether nothing can be recorded.
    """

    def __init__(
        self,
        session: Session,
        record: Record,
        device: torch.device,
        *,
        name: str,
        max_recordings: int,
        refused: bool = False,
    ) -> None:
        self._session = session
        self._recorder = record
        self._device = device
        self._name = name
        self._max_recordings = max_recordings
        self._recordings: OrderedDict[Any, Recording] = OrderedDict()
        self._seen: OrderedDict[Any, None] = OrderedDict()  # sizes that ran once
        self._pools: dict[int, StreamPool] = {}
        self._lock = threading.Lock()
        self._index: int = device.index
        self._current_device = torch_internals.current_device_index
        self._stream_of = torch_internals.current_stream_handle
        self._capturing = torch_internals.is_capturing
        self._refused = refused

    @property
    def recorded(self) -> int:
        """Number of recordings that are kept now."""
        return len(self._recordings)

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once; see the session's own `run`."""
        if self._current_device() != self._index:
            with torch.cuda.device(self._index):
                return self.run(inputs, shapes)
        if self._refused or self._capturing():
            return self._session.run(inputs, shapes)
        stream = self._stream_of(self._index)
        key = (stream, *[tensor.shape for tensor in inputs])
        try:
            recording = self._recordings[key]
            self._recordings.move_to_end(key)
        except KeyError:
            found = self._new(key, stream, inputs, shapes)
            if found is None:
                return self._session.run(inputs, shapes)
            recording = found
        results = recording.replay(inputs)
        return self._session.run(inputs, shapes) if results is None else results

    def _new(
        self,
        key: Any,
        stream: int,
        inputs: Sequence[torch.Tensor],
        shapes: Sequence[tuple[int, ...]],
    ) -> Recording | None:
        """Record sizes that were seen before; None for sizes that are new or cannot be recorded."""
        with self._lock:
            recording = self._recordings.get(key)
            if recording is not None:
                return recording
            if any(-1 in shape for shape in shapes) or all(0 in shape for shape in shapes):
                return None
            if key not in self._seen:
                self._seen[key] = None
                if len(self._seen) > _MAX_SEEN:
                    self._seen.popitem(last=False)
                return None
            try:
                recording = self._record(stream, inputs, shapes)
            except OutOfProfileError:
                raise  # these sizes alone cannot run
            except EngineError as err:
                logger.warning("CUDA graphs are no longer used: %s", err.happened)
                self._refused = True
                return None
            self._recordings[key] = recording
            while len(self._recordings) > self._max_recordings:
                forgotten, oldest = self._recordings.popitem(last=False)
                oldest.give_back()
                self._seen.pop(forgotten, None)  # recorded again after two more calls
            return recording

    def _record(
        self, stream: int, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> Recording:
        try:
            if stream not in self._pools:
                self._pools[stream] = StreamPool(self._device)
            return self._recorder(self._pools[stream], stream, inputs, shapes)
        except EngineError:
            raise
        except RuntimeError as err:
            raise EngineError(
                f"{self._name} cannot be recorded as a CUDA graph: {err}",
                "work that is all on the GPU",
                "run it without portrt.runtime.cuda_graphs",
            ) from err
