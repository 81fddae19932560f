"""The steps of one run: bind inputs, set sizes, allocate outputs, enqueue on a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch

from portrt.engines.base import Session
from portrt.engines.tensorrt import errors
from portrt.engines.tensorrt.bindings import bindings_of
from portrt.engines.tensorrt.contexts import Contexts, Slot
from portrt.engines.tensorrt.dynamic_outputs import max_output_bytes, torch_output
from portrt.engines.tensorrt.engine import OpenedEngine
from portrt.engines.tensorrt.int64_narrowing import Narrower
from portrt.engines.tensorrt.memory import ALIGNMENT, Memory
from portrt.engines.tensorrt.profiles import Bounds, profile_of, refuse_sizes
from portrt.errors import EngineError
from portrt.format.manifest import EngineSpec, Signature

_MAX_KNOWN_SHAPES = 1024


class EngineExecution(Session):
    """An engine on one device, and the steps of a run.

    Base of `TensorRTSession`, which adds the call itself. A recording and the timing of layers take
    the same steps on contexts of their own.

    Args:
        opened: The engine.
        spec: Its entry, with the names of its bindings where they are not the block's.
        signature: What the block takes and returns.

    Attributes:
        opened: The engine.
        name: Name of the block.
        device: Where it runs.
        inputs: The block's inputs that the engine takes.
        outputs: The block's outputs.
        narrowed: Positions in the call of the int64 inputs that the engine takes as int32.
        narrow: Converts these inputs; None if there are none.
        memory: Allocates outputs and activations.
        contexts: The execution contexts.

    Raises:
        EngineError: The engine does not have the block's inputs and outputs.
    """

    def __init__(self, opened: OpenedEngine, spec: EngineSpec, signature: Signature) -> None:
        self.opened = opened
        self.name = signature.name
        self.device = opened.device
        self.inputs, self.outputs = bindings_of(opened, spec, signature)
        self._bounds: Bounds = tuple((port.index, port.name, port.binding) for port in self.inputs)
        self._in = [
            (port.index, port.name, port.other_type, port.binding.on_host) for port in self.inputs
        ]
        self._out = [(port.name, port.binding.dtype) for port in self.outputs]
        self._host_inputs = {
            port.name: port.binding.dtype for port in self.inputs if port.binding.on_host
        }
        self.narrowed = [
            port.index for port in self.inputs if port.other_type and not port.binding.on_host
        ]
        self.memory = Memory(self.device)
        self.narrow = Narrower(opened.device, self.memory) if self.narrowed else None
        self._profiles: dict[Any, int] = {}
        self.contexts = Contexts(opened)

    def bound(
        self, inputs: Sequence[torch.Tensor], stream: int
    ) -> tuple[list[tuple[str, torch.Tensor]], Any]:
        """Convert the inputs to what the engine takes: contiguous, aligned, of its types.

        Args:
            inputs: Inputs of the block's call.
            stream: Handle of the current stream.

        Returns:
            Binding and tensor of each input, and the sizes of all inputs as a key.

        Raises:
            EngineError: Integers of this or an earlier call do not fit the engine's type.
        """
        narrow = self.narrow
        if narrow is not None and narrow.overflowed:
            self.refuse_overflow()
        kept: list[tuple[str, torch.Tensor]] = []
        narrowed: Iterator[torch.Tensor] = iter(())
        if narrow is not None:
            narrowed = iter(narrow([inputs[place] for place in self.narrowed], stream))
        for index, name, other_type, on_host in self._in:
            tensor = inputs[index]
            if on_host:
                tensor = self._shape_tensor(tensor, self._host_inputs[name])
            elif other_type:
                tensor = next(narrowed)
            elif not tensor.is_contiguous() or tensor.data_ptr() % ALIGNMENT:
                tensor = tensor.clone(memory_format=torch.contiguous_format)
            kept.append((name, tensor))
        sizes: Any = tuple([tensor.shape for _, tensor in kept])
        if self._host_inputs:  # their values count, too
            numbers = [tensor for name, tensor in kept if name in self._host_inputs]
            sizes = (sizes, tuple([tuple(tensor.flatten().tolist()) for tensor in numbers]))
        return kept, sizes

    def profile(self, sizes: Any, given: dict[str, torch.Tensor]) -> int:
        """Choose the optimization profile for these sizes, and remember it.

        Args:
            sizes: Key of the sizes, as `bound` returns it.
            given: Binding -> tensor.

        Returns:
            Index of the first profile whose ranges include them.

        Raises:
            OutOfProfileError: No profile includes them.
        """
        found = profile_of(self._bounds, self.opened.profile_count, given)
        if found is None:
            refuse_sizes(self.name, self._bounds, self.opened.profile_count, given)
        if len(self._profiles) >= _MAX_KNOWN_SHAPES:
            self._profiles.clear()
        self._profiles[sizes] = found
        return found

    def enqueue(
        self,
        slot: Slot,
        stream: int,
        given: Sequence[tuple[str, torch.Tensor]],
        sizes: Any,
        shapes: Sequence[tuple[int, ...]],
    ) -> list[torch.Tensor]:
        """Run a context on tensors of the bindings' types.

        Args:
            slot: The context.
            stream: Handle of the stream to enqueue on; the current one.
            given: Binding and tensor of each input, as `bound` returns them.
            sizes: Key of the sizes, as `bound` returns it.
            shapes: Shape of each output; -1 for a data-dependent size.

        Returns:
            New outputs, of the bindings' types.

        Raises:
            EngineError: TensorRT rejects the sizes or fails, or there is too little GPU memory.
        """
        context, known = slot.context, slot.addresses
        if slot.sizes != sizes:
            self._set_sizes(slot, given, sizes, shapes)
        for name, tensor in given:
            address = tensor.data_ptr() or self.memory.nowhere()
            if known.get(name) != address:
                if not context.set_tensor_address(name, address):
                    raise errors.failure(self.name, self.opened.lib, sizes)
                known[name] = address
        bytes_wanted = self.opened.memory_bytes[slot.profile]
        try:
            outputs = self._allocate(slot, sizes, shapes)
            if bytes_wanted:
                activations = self.memory.empty((bytes_wanted,), torch.uint8)
                address = activations.data_ptr()
                if address != slot.memory:
                    self.opened.set_memory(context, address, slot.profile)
                    slot.memory = address
        except torch.OutOfMemoryError as err:
            raise errors.out_of_memory(self.name, self.device, bytes_wanted) from err
        if not context.execute_async_v3(stream):
            raise errors.failure(self.name, self.opened.lib, sizes)
        if slot.outputs:
            return self._measured(slot, outputs, shapes)
        return outputs

    def _allocate(
        self, slot: Slot, sizes: Any, shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        outputs = []
        context, known, memory = slot.context, slot.addresses, self.memory
        for (name, dtype), shape, port in zip(self._out, shapes, self.outputs, strict=True):
            shape = slot.known_shapes.get(name, shape)
            if port.binding.on_host:
                output = torch.empty(shape, dtype=dtype)
            elif name in slot.outputs:
                outputs.append(memory.nothing())  # a placeholder until the engine has run
                continue
            else:
                output = memory.empty(shape, dtype)
            outputs.append(output)
            address = output.data_ptr() or memory.nowhere()
            if known.get(name) != address:
                if not context.set_tensor_address(name, address):
                    raise errors.failure(self.name, self.opened.lib, sizes)
                known[name] = address
        return outputs

    def _measured(
        self, slot: Slot, outputs: list[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Replace placeholders by the data-dependent outputs, whose shapes the engine has set."""
        found = []
        for port, output, shape in zip(self.outputs, outputs, shapes, strict=True):
            if port.name in slot.outputs:
                output = slot.outputs[port.name].take()
                sizes = zip(output.shape, shape, strict=False)
                if len(output.shape) != len(shape) or any(a != b != -1 for a, b in sizes):
                    raise errors.other_shape(self.name, port, output.shape, shape)
            found.append(output)
        return found

    def _set_sizes(
        self,
        slot: Slot,
        given: Sequence[tuple[str, torch.Tensor]],
        sizes: Any,
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        """Set new input shapes on a context, and check its output shapes against the manifest."""
        context = slot.context
        self.opened.lib.clear_log()
        if slot.max_bytes is None:
            slot.max_bytes = self._max_bytes(slot, shapes)
        for name, tensor in given:
            if name in self._host_inputs:  # TensorRT reads its values in set_input_shape
                context.set_tensor_address(name, tensor.data_ptr())
                slot.addresses[name] = tensor.data_ptr()
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise errors.failure(self.name, self.opened.lib, sizes)
        for port, shape in zip(self.outputs, shapes, strict=True):
            found = tuple(context.get_tensor_shape(port.name))
            if -1 in found:
                if port.name not in slot.outputs:
                    slot.outputs[port.name] = torch_output(
                        self.opened,
                        context,
                        port.name,
                        port.binding.dtype,
                        slot.max_bytes.get(port.name, 0),
                    )
            elif len(found) != len(shape) or any(
                size not in (-1, other) for size, other in zip(shape, found, strict=True)
            ):
                raise errors.other_shape(self.name, port, found, shape)
            elif -1 in shape:
                slot.known_shapes[port.name] = found
        slot.sizes = sizes

    def _max_bytes(self, slot: Slot, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
        """Find upper bounds of data-dependent outputs, where the library requests too little."""
        unknown = [p.name for p, shape in zip(self.outputs, shapes, strict=True) if -1 in shape]
        if not unknown or not self.opened.requests_too_little or self._host_inputs:
            return {}
        return max_output_bytes(self.opened, slot.context, slot.profile, unknown)

    def _shape_tensor(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Copy a shape tensor to CPU memory, which synchronizes with the GPU."""
        if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
            raise EngineError(
                f"{self.name} takes sizes from the values of an input, which a CUDA graph cannot "
                "read",
                "a call outside of a CUDA graph",
                "call the program without capturing",
            )
        found = tensor.cpu().contiguous()
        narrow = found.to(dtype)
        if narrow.dtype != found.dtype and not torch.equal(narrow.to(found.dtype), found):
            self.refuse_overflow()
        return narrow

    def refuse_overflow(self) -> NoReturn:
        """Raise EngineError for integers that int32 does not hold."""
        raise errors.overflow(self.name, self.inputs)
