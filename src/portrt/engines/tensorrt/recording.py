"""An engine's run for some sizes as one CUDA graph, replayed on tensors at any addresses."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from portrt.engines.tensorrt.capture_guard import alone_on
from portrt.engines.tensorrt.cuda_driver import new_stream
from portrt.engines.tensorrt.cuda_graph import CudaGraph, GraphCopy, record_copy
from portrt.engines.tensorrt.execution import EngineExecution


class StreamPool:
    """Resources that all recordings of one stream share.

    Their memory pool, since they run one after the other; a stream for capturing, which no other
    code uses, unlike those of torch's pool; and a lock, held from the first update of a graph until
    its results are enqueued, so that concurrent calls do not interleave.

    Args:
        device: Device of the stream; the current one.

    Raises:
        RuntimeError: The driver cannot create a stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.handle: Any = torch.cuda.graph_pool_handle()
        self.lock = threading.Lock()
        self.capture: Any = torch.cuda.ExternalStream(  # type: ignore[no-untyped-call]
            new_stream(), device=device
        )


class Recording:
    """A CUDA graph, an execution context of its own, and the memory that the engine works on.

    The graph copies the inputs to the engine's input memory, and the outputs from its output
    memory. Before each launch these copies get the addresses of the call's tensors. Types that the
    engine does not have are converted outside of the graph.

    Args:
        session: The engine.
        pool: Resources of the stream.
        stream: Handle of the current stream, which the recording is for.
        inputs: Inputs of the block's call.
        shapes: Shape of each output.

    Raises:
        RuntimeError: The engine cannot be recorded.
    """

    def __init__(
        self,
        session: EngineExecution,
        pool: StreamPool,
        stream: int,
        inputs: Sequence[torch.Tensor],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        self._session = session
        self._pool = pool
        self._stream, self._stream_given = stream, ctypes.c_void_p(stream)
        given = [inputs[port.index].contiguous() for port in session.inputs]
        self._memories = [
            torch.empty(tensor.shape, dtype=port.binding.dtype, device=session.device).copy_(tensor)
            for port, tensor in zip(session.inputs, given, strict=True)
        ]
        tensors = [
            (port.name, memory) for port, memory in zip(session.inputs, self._memories, strict=True)
        ]
        sizes = tuple([memory.shape for memory in self._memories])
        self._slot = session.contexts.take(stream, session.profile(sizes, dict(tensors)), sizes)
        # A run before capturing: TensorRT may allocate in the first run with new sizes.
        first = session.enqueue(self._slot, stream, tensors, sizes, shapes)
        self._narrowed = [
            memory
            for port, memory in zip(session.inputs, self._memories, strict=True)
            if port.other_type
        ]
        copied_in = [
            (port.index, tensor, memory)
            for port, tensor, memory in zip(session.inputs, given, self._memories, strict=True)
            if not port.other_type and tensor.numel()
        ]
        side = pool.capture
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        torch.cuda.current_stream(session.device).synchronize()
        with pool.lock, alone_on(session.device), torch.cuda.stream(side):
            graph.capture_begin(pool=pool.handle, capture_error_mode="thread_local")
            try:
                for _, tensor, memory in copied_in:
                    record_copy(tensor, memory, side.cuda_stream)
                outputs = session.enqueue(self._slot, side.cuda_stream, tensors, sizes, shapes)
                copied_out = [
                    (output, target) if not port.other_type and output.numel() else None
                    for port, output, target in zip(session.outputs, outputs, first, strict=True)
                ]
                for ends in copied_out:
                    if ends is not None:
                        record_copy(*ends, side.cuda_stream)
            finally:
                graph.capture_end()
            made = CudaGraph(graph)
            into = made.copies([(tensor, memory) for _, tensor, memory in copied_in])
            out_of = iter(made.copies([ends for ends in copied_out if ends]))
        self._graph = made
        self._into = [(place, copy) for (place, _, _), copy in zip(copied_in, into, strict=True)]
        self._results = [
            _Result(output, tuple(output.shape), output.dtype, next(out_of) if ends else None)
            for output, ends in zip(outputs, copied_out, strict=True)
        ]
        self._converted = [
            (place, port.dtype) for place, port in enumerate(session.outputs) if port.other_type
        ]

    def give_back(self) -> None:
        """Return the context to other calls of the stream, after the work enqueued there."""
        self._session.contexts.give(self._slot, self._stream)

    def replay(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
        """Launch the graph on the recording's stream, which is current.

        Returns:
            New tensors; None if the driver rejects an address of the call's tensors.

        Raises:
            EngineError: This or an earlier call had integers that the engine's type does not hold.
        """
        session = self._session
        narrow = session.narrow
        if narrow is not None and narrow.overflowed:
            session.refuse_overflow()
        read, results, empty = [], [], session.memory.empty
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
            if narrow is not None:
                wide = [inputs[place] for place in session.narrowed]
                narrow(wide, self._stream, self._narrowed)
            self._graph.launch(self._stream_given)
            for place, wanted in self._converted:
                results[place] = results[place].to(wanted)
        return results


class _Result(NamedTuple):
    """An output's memory in the graph, and the copy out of it.

    The copy is None where there is nothing to copy, or the output is converted after the graph.
    """

    memory: torch.Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype
    copy_out: GraphCopy | None
