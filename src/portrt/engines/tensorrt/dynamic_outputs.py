"""Outputs whose size only a run tells: allocated by torch when TensorRT asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch

from portrt.engines.tensorrt.engine import OpenedEngine
from portrt.errors import EngineError


class TorchOutput(Protocol):
    """The allocator of one output of one context."""

    def take(self) -> torch.Tensor:
        """What the last run wrote, in its real size; the next run gets other memory."""
        ...


def most_bytes(
    opened: OpenedEngine, context: Any, profile: int, names: Iterable[str]
) -> dict[str, int]:
    """What outputs hold at most, at the largest sizes of a profile; 0 where that is not known.

    To be asked of a new context, before it is told the sizes of a call. Seen: what 8.6 was told
    before, and not after, it does not compute with.

    Args:
        opened: The engine; its inputs are all on the GPU.
        context: Is told these sizes.
        profile: Its profile.
        names: Bindings of the outputs.
    """
    for name, binding in opened.inputs.items():
        largest = binding.profiles[profile][1] or tuple(opened.engine.get_tensor_shape(name))
        if not context.set_input_shape(name, largest):
            return dict.fromkeys(names, 0)
    return {name: max(0, int(context.get_max_output_size(name))) for name in names}


def torch_output(
    opened: OpenedEngine, context: Any, name: str, dtype: torch.dtype, most_bytes: int = 0
) -> TorchOutput:
    """Let a context allocate an output by torch, on the stream of the call.

    Args:
        opened: The engine.
        context: Whose output it is; keeps the allocator.
        name: Its binding.
        dtype: Its type.
        most_bytes: What it holds at most, for a library that asks for too little.

    Raises:
        EngineError: The engine is too old for the library that runs it, or the library is, and
            nobody knows what the output holds at most.
    """
    if not opened.allocates_outputs:
        raise EngineError(
            f"output {name!r} has a size that only a run tells, and {opened.lib.name} "
            f"{opened.lib.version} cannot take such a size from an engine of an older release",
            "a runtime of the release that built the engine",
            "install that tensorrt or tensorrt_lean, or build the engine again with a newer one",
        )
    if opened.asks_too_little and not most_bytes:
        raise EngineError(
            f"output {name!r} has a size that only a run tells, and {opened.lib.name} "
            f"{opened.lib.version} does not tell how large it may be",
            "an output whose largest size follows from those of the inputs",
            "build the engine again with TensorRT 10 or newer",
        )
    module: Any = opened.lib.module
    device = opened.device

    class Allocator(module.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IOutputAllocator.__init__(self)
            self.buffer: torch.Tensor | None = None
            self.shape: tuple[int, ...] = ()

        def reallocate_output(
            self,
            _name: str,
            _memory: int,
            size: int,
            _alignment: int,
        ) -> int:
            wanted = max(size, most_bytes, 1)
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
