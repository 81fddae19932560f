"""A call recorded as one CUDA graph, replayed on tensors at any addresses."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from portrt.engines.cuda.capture_guard import alone_on
from portrt.engines.cuda.driver import new_stream
from portrt.engines.cuda.graph import CudaGraph, GraphCopy, record_copy


class CaptureStream:
    """The stream of a device that is captured, which no other code uses, unlike torch's streams.

    One for all recordings: libraries keep a workspace of tens of megabytes for each stream. Its
    lock is held from what runs on it before a capture until the end of that capture.

    Args:
        device: Device of the stream; the current one.

    Raises:
        RuntimeError: The driver cannot create a stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.lock = threading.RLock()
        self.stream: Any = torch.cuda.ExternalStream(  # type: ignore[no-untyped-call]
            new_stream(), device=device
        )


_capture_streams: dict[torch.device, CaptureStream] = {}
_creation = threading.Lock()


class StreamPool:
    """Resources that all recordings of one stream share.

    Their memory pool, since they run one after the other; and a lock, held from the first update of
    a graph until its results are enqueued, so that concurrent calls do not interleave.

    Args:
        device: Device of the stream; the current one.

    Raises:
        RuntimeError: The driver cannot create a stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.handle: Any = torch.cuda.graph_pool_handle()
        self.lock = threading.Lock()
        with _creation:
            if device not in _capture_streams:
                _capture_streams[device] = CaptureStream(device)
        self.capture = _capture_streams[device]


class Input(NamedTuple):
    """An input that the graph copies: its position in the call, and the memory it is copied to."""

    place: int
    tensor: torch.Tensor
    memory: torch.Tensor


class CapturedCall:
    """A CUDA graph that copies inputs in, runs, and copies outputs out.

    Before each launch the copies get the addresses of the call's tensors.

    Args:
        pool: Resources of the stream.
        stream: Handle of the stream that the graph is launched on.
        inputs: What is copied in; contiguous, with at least one element.
        enqueue: Enqueues the work on a stream, given its handle, which is current; returns the
            outputs. Called once.
        targets: For each output, a contiguous tensor of its shape and dtype, which is overwritten;
            None for an output that is not copied out: a replay returns the graph's own memory.

    Raises:
        RuntimeError: The work cannot be captured.
    """

    def __init__(
        self,
        pool: StreamPool,
        stream: int,
        inputs: Sequence[Input],
        enqueue: Callable[[int], Sequence[torch.Tensor]],
        targets: Sequence[torch.Tensor | None],
    ) -> None:
        self._pool = pool
        self._stream = ctypes.c_void_p(stream)
        side = pool.capture.stream
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        torch.cuda.current_stream(pool.device).synchronize()
        with (
            pool.capture.lock,
            pool.lock,
            alone_on(pool.device),
            torch.cuda.stream(side),
        ):
            graph.capture_begin(pool=pool.handle, capture_error_mode="thread_local")
            try:
                for item in inputs:
                    record_copy(item.tensor, item.memory, side.cuda_stream)
                outputs = enqueue(side.cuda_stream)
                ends = [
                    None if target is None or not output.numel() else (output, target)
                    for output, target in zip(outputs, targets, strict=True)
                ]
                for pair in ends:
                    if pair is not None:
                        record_copy(*pair, side.cuda_stream)
            finally:
                graph.capture_end()
            self._graph = CudaGraph(graph)
            into = self._graph.copies([(item.tensor, item.memory) for item in inputs])
            out_of = iter(self._graph.copies([pair for pair in ends if pair]))
        self._into = [(item.place, copy) for item, copy in zip(inputs, into, strict=True)]
        self._results = [
            _Result(output, tuple(output.shape), output.dtype, next(out_of) if pair else None)
            for output, pair in zip(outputs, ends, strict=True)
        ]

    def replay(
        self,
        inputs: Sequence[torch.Tensor],
        empty: Callable[[tuple[int, ...], torch.dtype], torch.Tensor],
        before: Callable[[], object] | None = None,
        after: Callable[[list[torch.Tensor]], object] | None = None,
    ) -> list[torch.Tensor] | None:
        """Launch the graph on the recording's stream, which is current.

        Args:
            inputs: Inputs of the call.
            empty: Allocates an output on the device.
            before: Enqueues what goes before the graph.
            after: Enqueues what comes after it, and may replace results.

        Returns:
            New tensors, except for outputs that are not copied out; None if the driver rejects an
            address of the call's tensors.
        """
        read, results = [], []
        with self._pool.lock:
            for place, copy in self._into:
                tensor = inputs[place]
                if not tensor.is_contiguous():
                    tensor = tensor.contiguous()
                    read.append(tensor)  # alive until the graph is launched
                if not copy.read_from(tensor.data_ptr()):
                    return None
            for memory, shape, dtype, copy_out in self._results:
                if copy_out is None:
                    results.append(memory)
                    continue
                result = empty(shape, dtype)
                if not copy_out.write_to(result.data_ptr()):
                    return None
                results.append(result)
            if before is not None:
                before()
            self._graph.launch(self._stream)
            if after is not None:
                after(results)
        return results


class _Result(NamedTuple):
    """An output's memory in the graph, and the copy out of it; None for none."""

    memory: torch.Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype
    copy_out: GraphCopy | None
