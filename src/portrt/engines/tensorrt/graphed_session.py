"""CUDA graphs of an engine: recorded for each combination of sizes, replayed in one launch."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from portrt import torch_internals
from portrt.engines.base import Session
from portrt.engines.tensorrt.execution import EngineExecution
from portrt.engines.tensorrt.recording import Recording, StreamPool
from portrt.errors import EngineError, OutOfProfileError

logger = logging.getLogger(__name__)

_MAX_SEEN = 1024


class GraphedSession(Session):
    """A session whose calls replay CUDA graphs, at any addresses of the caller's tensors.

    The first call with some sizes on a stream runs as usual, the second records. The least recently
    used recording is dropped.

    Args:
        session: Runs what cannot be recorded.
        max_recordings: Number of recordings that are kept.
    """

    def __init__(self, session: EngineExecution, max_recordings: int) -> None:
        self._session = session
        self._max_recordings = max_recordings
        self._recordings: OrderedDict[Any, Recording] = OrderedDict()
        self._seen: OrderedDict[Any, None] = OrderedDict()  # sizes that ran once
        self._pools: dict[int, StreamPool] = {}
        self._lock = threading.Lock()
        self._index: int = session.device.index
        self._current_device = torch_internals.current_device_index
        self._stream_of = torch_internals.current_stream_handle
        self._capturing = torch_internals.is_capturing
        ports = (*session.inputs, *session.outputs)
        self._refused = any(port.binding.on_host for port in ports)

    @property
    def recorded(self) -> int:
        """Number of recordings that are kept now."""
        return len(self._recordings)

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once; see `TensorRTSession.run`."""
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
            if any(-1 in shape for shape in shapes):
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
        session = self._session
        try:
            if stream not in self._pools:
                self._pools[stream] = StreamPool(session.device)
            return Recording(session, self._pools[stream], stream, inputs, shapes)
        except EngineError:
            raise
        except RuntimeError as err:
            raise EngineError(
                f"{session.name} cannot be recorded as a CUDA graph: {err}",
                "an engine whose work is all on the GPU",
                "run it without portrt.runtime.cuda_graphs",
            ) from err
