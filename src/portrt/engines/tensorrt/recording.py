"""An engine's run for some sizes as one CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from portrt.engines.cuda.captured_call import CapturedCall, Input, StreamPool
from portrt.engines.tensorrt.execution import EngineExecution


class Recording:
    """A CUDA graph, an execution context of its own, and the memory that the engine works on.

    Types that the engine does not have are converted outside of the graph.

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
        self._stream = stream
        given = [inputs[port.index].contiguous() for port in session.inputs]
        memories = [
            torch.empty(tensor.shape, dtype=port.binding.dtype, device=session.device).copy_(tensor)
            for port, tensor in zip(session.inputs, given, strict=True)
        ]
        self._memories = memories  # the graph reads them
        tensors = [
            (port.name, memory) for port, memory in zip(session.inputs, memories, strict=True)
        ]
        sizes = tuple([memory.shape for memory in memories])
        self._slot = session.contexts.take(stream, session.profile(sizes, dict(tensors)), sizes)
        # A run before capturing: TensorRT may allocate in the first run with new sizes.
        first = session.enqueue(self._slot, stream, tensors, sizes, shapes)
        self._narrowed = [
            memory for port, memory in zip(session.inputs, memories, strict=True) if port.other_type
        ]
        copied = [
            Input(port.index, tensor, memory)
            for port, tensor, memory in zip(session.inputs, given, memories, strict=True)
            if not port.other_type and tensor.numel()
        ]
        self._call = CapturedCall(
            pool,
            stream,
            copied,
            lambda side: session.enqueue(self._slot, side, tensors, sizes, shapes),
            [
                None if port.other_type else target
                for port, target in zip(session.outputs, first, strict=True)
            ],
        )
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
        before = None
        if narrow is not None:
            if narrow.overflowed:
                session.refuse_overflow()
            wide = [inputs[place] for place in session.narrowed]
            before = partial(narrow, wide, self._stream, self._narrowed)
        after = self._convert if self._converted else None
        return self._call.replay(inputs, session.memory.empty, before, after)

    def _convert(self, results: list[torch.Tensor]) -> None:
        for place, wanted in self._converted:
            results[place] = results[place].to(wanted)
