"""Data-dependent outputs: allocated by torch during the run, when TensorRT requests memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch

from portrt.engines.tensorrt.engine import OpenedEngine
from portrt.errors import EngineError


class TorchOutput(Protocol):
    """The allocator of one output of one context."""

    def take(self) -> torch.Tensor:
        """Return the output of the last run in its actual shape; the next run gets new memory."""
        ...


def max_output_bytes(
    opened: OpenedEngine, context: Any, profile: int, names: Iterable[str]
) -> dict[str, int]:
    """Query a context for the upper bounds of data-dependent outputs.

    The context must be new, with no sizes of a call set. Seen: 8.6 ignores the maximum sizes of a
    profile where other sizes were set before them.

    Args:
        opened: The engine; its inputs are all on the GPU.
        context: Gets the maximum sizes of the profile as its input shapes.
        profile: Index of its optimization profile.
        names: Bindings of the outputs.

    Returns:
        Binding -> bytes; 0 where the bound is unknown.
    """
    for name, binding in opened.inputs.items():
        largest = binding.profiles[profile][1] or tuple(opened.engine.get_tensor_shape(name))
        if not context.set_input_shape(name, largest):
            return dict.fromkeys(names, 0)
    return {name: max(0, int(context.get_max_output_size(name))) for name in names}


def torch_output(
    opened: OpenedEngine, context: Any, name: str, dtype: torch.dtype, max_bytes: int = 0
) -> TorchOutput:
    """Make a context allocate an output with torch, on the stream of the call.

    Args:
        opened: The engine.
        context: Context of the output; keeps the allocator alive.
        name: Name of the binding.
        dtype: Type of the output.
        max_bytes: Upper bound of the output, for a library that may request too little memory.

    Raises:
        EngineError: The engine is too old for the library that runs it; or the library is too old,
            and the upper bound of the output is unknown.
    """
    if not opened.allocates_outputs:
        raise EngineError(
            f"output {name!r} has a data-dependent size, which {opened.lib.name} "
            f"{opened.lib.version} cannot get from an engine of an older release",
            "a runtime of the release that built the engine",
            "install that tensorrt or tensorrt_lean, or build the engine again with a newer one",
        )
    if opened.requests_too_little and not max_bytes:
        raise EngineError(
            f"output {name!r} has a data-dependent size, and {opened.lib.name} "
            f"{opened.lib.version} reports no upper bound of it",
            "an output whose maximum size follows from those of the inputs",
            "build the engine again with TensorRT 10 or later",
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
            wanted = max(size, max_bytes, 1)
            try:
                self.buffer = torch.empty(wanted, dtype=torch.uint8, device=device)
            except torch.OutOfMemoryError:
                return 0  # TensorRT's convention for a failed allocation; the call fails
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
                    f"TensorRT requested no memory for output {name!r} of shape {shape}",
                    "a request for memory in each run",
                    "report the model",
                )
            found = buffer[: count * dtype.itemsize].view(dtype).view(shape)
            # A view of a small part would keep the whole buffer alive.
            return found if 2 * found.nbytes >= buffer.nbytes else found.clone()

    made = Allocator()
    context.set_output_allocator(name, made)
    found: TorchOutput = made
    return found
