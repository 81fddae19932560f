"""CUDA graphs of an engine: recorded for each combination of sizes, replayed in one launch."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from portrt import torch_internals
from portrt.backends.trt.contexts import Slot
from portrt.backends.trt.ports import Port
from portrt.backends.trt.session import TensorRTSession
from portrt.errors import EngineError

logger = logging.getLogger(__name__)

_MOST_SEEN = 1024


@dataclass(eq=False)
class StreamPool:
    """The memory of all recordings of one stream.

    They share it, since they run one after the other; from the copy of a call's inputs to the copy
    of its outputs the lock is held, so that no other call comes in between.
    """

    handle: Any = field(default_factory=lambda: torch.cuda.graph_pool_handle())
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(eq=False)
class Recording:
    """A graph, its context, which nothing else uses, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    slot: Slot
    inputs: list[tuple[Port, torch.Tensor]]
    outputs: list[torch.Tensor]

    def __post_init__(self) -> None:
        self.narrowed = [memory for port, memory in self.inputs if port.other_type]


class GraphedSession:
    """A session whose calls are replays.

    Inputs are copied to where the graph reads them and outputs from where it writes them, so that
    it does not matter where the caller's tensors lie. The first call with some sizes on a stream
    runs as usual, the second records. What was not used for longest is forgotten.

    Args:
        session: Runs what cannot be recorded.
        most: Number of recordings that are kept.
    """

    def __init__(self, session: TensorRTSession, most: int) -> None:
        self._session = session
        self._most = most
        self._recordings: OrderedDict[Any, Recording] = OrderedDict()
        self._seen: OrderedDict[Any, None] = OrderedDict()  # sizes that ran once
        self._pools: dict[int, StreamPool] = {}
        self._lock = threading.Lock()
        self._index: int = session.device.index
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
        if torch_internals.current_device_index() != self._index:
            with torch.cuda.device(self._index):
                return self.run(inputs, shapes)
        if self._refused or torch.cuda.is_current_stream_capturing():
            return self._session.run(inputs, shapes)
        stream = torch_internals.current_stream_handle(self._index)
        key = (stream, *[tensor.shape for tensor in inputs])
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._new(key, stream, inputs, shapes)
            if recording is None:
                return self._session.run(inputs, shapes)
        else:
            with contextlib.suppress(KeyError):  # another thread forgot it
                self._recordings.move_to_end(key)
        return self._replay(recording, stream, inputs)

    def _replay(
        self, recording: Recording, stream: int, inputs: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        narrow = self._session.narrow
        if narrow is not None and narrow.overflowed:
            self._session.refuse_overflow()
        with self._pools[stream].lock:
            for port, memory in recording.inputs:
                if not port.other_type:
                    memory.copy_(inputs[port.index])
            if narrow is not None:
                wide = [inputs[place] for place in self._session.narrowed]
                narrow(wide, stream, recording.narrowed)
            recording.graph.replay()
            return [
                output.to(port.dtype) if port.other_type else output.clone()
                for output, port in zip(recording.outputs, self._session.outputs, strict=True)
            ]

    def _new(
        self,
        key: Any,
        stream: int,
        inputs: Sequence[torch.Tensor],
        shapes: Sequence[tuple[int, ...]],
    ) -> Recording | None:
        """A recording for sizes that were seen before, else None."""
        with self._lock:
            recording = self._recordings.get(key)
            if recording is not None:
                return recording
            if any(-1 in shape for shape in shapes):
                return None
            if key not in self._seen:
                self._seen[key] = None
                if len(self._seen) > _MOST_SEEN:
                    self._seen.popitem(last=False)
                return None
            try:
                recording = self._record(stream, inputs, shapes)
            except EngineError as err:
                logger.warning("CUDA graphs are not used any more: %s", err.happened)
                self._refused = True
                return None
            self._recordings[key] = recording
            while len(self._recordings) > self._most:
                forgotten, _ = self._recordings.popitem(last=False)
                self._seen.pop(forgotten, None)  # to be recorded again it must come twice again
            return recording

    def _record(
        self, stream: int, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> Recording:
        session = self._session
        memories = []
        for port in session.inputs:
            given = inputs[port.index]
            memory = torch.empty(given.shape, dtype=port.binding.dtype, device=session.device)
            memories.append((port, memory.copy_(given)))
        tensors = [(port.name, memory) for port, memory in memories]
        sizes = tuple([memory.shape for _, memory in tensors])
        slot = session.contexts.take(stream, session.profile(sizes, dict(tensors)), sizes)
        # Whatever it allocates for these sizes it allocates now.
        session.enqueue(slot, stream, tensors, sizes, shapes)
        pool = self._pools.setdefault(stream, StreamPool())
        side: Any = torch.cuda.Stream(device=session.device)  # type: ignore[no-untyped-call]
        graph = torch.cuda.CUDAGraph()
        with pool.lock:
            torch.cuda.current_stream(session.device).synchronize()
            try:
                with torch.cuda.stream(side):
                    graph.capture_begin(pool=pool.handle, capture_error_mode="thread_local")
                    try:
                        outputs = session.enqueue(slot, side.cuda_stream, tensors, sizes, shapes)
                    finally:
                        graph.capture_end()
            except RuntimeError as err:
                raise EngineError(
                    f"{session.name} cannot be recorded as a CUDA graph: {err}",
                    "an engine whose work is all on the GPU",
                    "run it without portrt.runtime.cuda_graphs",
                ) from err
        return Recording(graph, slot, memories, outputs)
