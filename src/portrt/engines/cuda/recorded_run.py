"""CUDA graphs of sessions whose work torch enqueues: sources, and code that torch compiled."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from portrt.engines.base import Session
from portrt.engines.cuda.allocation import empty_on
from portrt.engines.cuda.captured_call import CapturedCall, Input, StreamPool
from portrt.engines.cuda.graphed_session import GraphedSession


class RecordedRun:
    """A session's run for some sizes as one CUDA graph.

    Args:
        session: What is recorded; all its work is on the current stream.
        pool: Resources of the stream.
        stream: Handle of the current stream, which the recording is for.
        inputs: Inputs of the call.
        shapes: Shape of each output.

    Raises:
        EngineError: The session fails where a stream is captured.
        RuntimeError: The run cannot be captured.
    """

    def __init__(
        self,
        session: Session,
        pool: StreamPool,
        stream: int,
        inputs: Sequence[torch.Tensor],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        given = [tensor.contiguous() for tensor in inputs]
        self._memories = [torch.empty_like(tensor).copy_(tensor) for tensor in given]
        copied = [
            Input(place, tensor, memory)
            for place, (tensor, memory) in enumerate(zip(given, self._memories, strict=True))
            if tensor.numel()
        ]
        side = pool.capture.stream
        with pool.capture.lock:
            # Runs before capturing, on the same stream: libraries allocate their workspaces then,
            # and Triton compiles.
            side.wait_stream(torch.cuda.current_stream(pool.device))
            with torch.cuda.stream(side):
                for _ in range(2):
                    first = session.run(self._memories, shapes)
            torch.cuda.current_stream(pool.device).wait_stream(side)
            self._call = CapturedCall(
                pool, stream, copied, lambda _: session.run(self._memories, shapes), first
            )
        self._empty = empty_on(pool.device)

    def give_back(self) -> None:
        """Release nothing but memory, which goes with the object."""

    def replay(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
        """Launch the graph on the recording's stream; None if the driver rejects an address."""
        return self._call.replay(inputs, self._empty)


def graphed_run(
    session: Session, device: torch.device, *, name: str, max_recordings: int
) -> GraphedSession:
    """Return a session that replays CUDA graphs of another session's run.

    Args:
        session: The session.
        device: Its GPU, with an index.
        name: Name of the block.
        max_recordings: Number of recordings that are kept.
    """

    def record(
        pool: StreamPool,
        stream: int,
        inputs: Sequence[torch.Tensor],
        shapes: Sequence[tuple[int, ...]],
    ) -> RecordedRun:
        return RecordedRun(session, pool, stream, inputs, shapes)

    return GraphedSession(session, record, device, name=name, max_recordings=max_recordings)
