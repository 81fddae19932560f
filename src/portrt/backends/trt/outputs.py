"""Outputs whose size only a run tells: allocated by torch when TensorRT asks."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from portrt.backends.trt.engine import OpenedEngine
from portrt.errors import EngineError


class TorchOutput(Protocol):
    """The allocator of one output of one context."""

    def expect(self, most_bytes: int) -> None:
        """Before each run: what it writes at most, as the context tells."""
        ...

    def take(self) -> torch.Tensor:
        """What the last run wrote, in its real size; the next run gets other memory."""
        ...


def torch_output(opened: OpenedEngine, context: Any, name: str, dtype: torch.dtype) -> TorchOutput:
    """Let a context allocate an output by torch, on the stream of the call.

    Args:
        opened: The engine.
        context: Whose output it is; keeps the allocator.
        name: Its binding.
        dtype: Its type.

    Raises:
        EngineError: The engine is too old for the library that runs it.
    """
    if not opened.allocates_outputs:
        raise EngineError(
            f"output {name!r} has a size that only a run tells, and {opened.lib.name} "
            f"{opened.lib.version} cannot take such a size from an engine of an older release",
            "a runtime of the release that built the engine",
            "install that tensorrt or tensorrt_lean, or build the engine again with a newer one",
        )
    module: Any = opened.lib.module
    device = opened.device

    class Allocator(module.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IOutputAllocator.__init__(self)
            self.buffer: torch.Tensor | None = None
            self.shape: tuple[int, ...] = ()
            self.most_bytes = 0

        def expect(self, most_bytes: int) -> None:
            self.most_bytes = most_bytes

        def reallocate_output(
            self,
            _name: str,
            _memory: int,
            size: int,
            _alignment: int,
        ) -> int:
            # Seen: 8.6 asks for what the last run wrote, and then writes what this one finds.
            wanted = max(size, self.most_bytes, 1)
            try:
                self.buffer = torch.empty(wanted, dtype=torch.uint8, device=device)
            except torch.OutOfMemoryError:
                return 0  # TensorRT's word for it; the call fails
            return self.buffer.data_ptr()

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, _stream: int
        ) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, _name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def take(self) -> torch.Tensor:
            buffer, shape = self.buffer, self.shape
            self.buffer = None
            count = 1
            for size in shape:
                count *= size
            if not count:
                return torch.empty(shape, dtype=dtype, device=device)
            if buffer is None:
                raise EngineError(
                    f"TensorRT gave output {name!r} no memory, and the shape {shape}",
                    "a request for memory in each run",
                    "report the model",
                )
            found = buffer[: count * dtype.itemsize].view(dtype).view(shape)
            # A small part would keep all of it in memory.
            return found if 2 * found.nbytes >= buffer.nbytes else found.clone()

    made = Allocator()
    context.set_output_allocator(name, made)
    found: TorchOutput = made
    return found
