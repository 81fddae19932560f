"""The hot path of TensorRT: torch tensors in and out, on the caller's stream."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import torch

from portrt import torch_internals
from portrt.engines.base import LayerTime, Session
from portrt.engines.cuda.graphed_session import GraphedSession
from portrt.engines.tensorrt import errors
from portrt.engines.tensorrt.contexts import Slot
from portrt.engines.tensorrt.engine import OpenedEngine
from portrt.engines.tensorrt.execution import EngineExecution
from portrt.engines.tensorrt.layer_times import layer_times
from portrt.engines.tensorrt.memory import ALIGNMENT, SMALL_BYTES
from portrt.engines.tensorrt.recording import Recording
from portrt.format.manifest import EngineSpec, Signature


class TensorRTSession(EngineExecution):
    """An engine on one device. Safe to use from several threads and on several streams.

    Contexts are kept by stream: the work of a context on one stream is in order. Activations are
    torch memory of the call's stream, freed as the call returns, so that all sessions share it;
    small engines share one memory per stream, which is kept.

    Args:
        opened: The engine.
        spec: Its entry, with the names of its bindings where they are not the block's.
        signature: What the block takes and returns.

    Raises:
        EngineError: The engine does not have the block's inputs and outputs.
    """

    supports_layer_times = True
    supports_graphs = True

    def __init__(self, opened: OpenedEngine, spec: EngineSpec, signature: Signature) -> None:
        super().__init__(opened, spec, signature)
        self._index: int = opened.device.index
        self._plain_out = all(
            not port.other_type and not port.binding.on_host for port in self.outputs
        )
        self._bytes_wanted = opened.memory_bytes[0]
        self._plain = (
            self._plain_out
            and self.narrow is None
            and not self._host_inputs
            and opened.profile_count == 1
        )
        self._plain_in = [(port.index, port.name) for port in self.inputs]
        self._idle, self._captured = self.contexts.idle, self.contexts.captured
        self._lock = threading.Lock()
        self._graphed: dict[int, GraphedSession] = {}
        self._capturing = torch_internals.is_capturing
        self._stream_of = torch_internals.current_stream_handle
        self._current_device = torch_internals.current_device_index

    def graphed(self, max_recordings: int) -> Session:
        """Return this session with up to `max_recordings` CUDA graphs."""
        with self._lock:
            if max_recordings not in self._graphed:
                ports = (*self.inputs, *self.outputs)
                self._graphed[max_recordings] = GraphedSession(
                    self,
                    partial(Recording, self),
                    self.device,
                    name=self.name,
                    max_recordings=max_recordings,
                    refused=any(port.binding.on_host for port in ports),
                )
            return self._graphed[max_recordings]

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once, on the stream that is current for the inputs' device.

        A size of -1 in `shapes` is known only when the engine has run.

        Raises:
            EngineError: TensorRT rejects the sizes or fails, or there is too little GPU memory.
        """
        if self._current_device() != self._index:
            with torch.cuda.device(self._index):
                return self._run(inputs, shapes)
        if not self._plain:
            return self._run(inputs, shapes)
        # What follows is `_run` for sizes that a context of this stream ran last, and tensors that
        # need no conversion: a small engine takes 20 us, of which Python's steps are a large part.
        stream = self._stream_of(self._index)
        idle = self._idle.get((stream, 0))
        try:
            slot = idle.pop() if idle else None
        except IndexError:  # another thread was faster
            slot = None
        if slot is None or idle is None:
            return self._run(inputs, shapes)
        if not self._is_ready(slot, inputs):
            idle.append(slot)
            return self._run(inputs, shapes)
        capturing = self._capturing()
        try:
            return self._at_once(slot, stream, shapes, capturing=capturing)
        except BaseException:
            slot.forget()
            raise
        finally:
            if capturing:
                self._captured.append(slot)
            else:
                idle.append(slot)

    def _is_ready(self, slot: Slot, inputs: Sequence[torch.Tensor]) -> bool:
        """Return whether a context ran these sizes last and can read the inputs in place.

        Sets their addresses.
        """
        if slot.sizes is None or slot.outputs:
            return False
        known = slot.addresses
        for (place, name), size in zip(self._plain_in, slot.sizes, strict=True):
            tensor = inputs[place]
            address = tensor.data_ptr()
            if tensor.shape != size or address % ALIGNMENT or not tensor.is_contiguous():
                return False
            if known.get(name) != address:
                if not address or not slot.context.set_tensor_address(name, address):
                    return False
                known[name] = address
        return True

    def _at_once(
        self, slot: Slot, stream: int, shapes: Sequence[tuple[int, ...]], *, capturing: bool
    ) -> list[torch.Tensor]:
        """Run a context whose sizes and input addresses are set."""
        context, known = slot.context, slot.addresses
        bytes_wanted, memory = self._bytes_wanted, self.memory
        outputs = []
        try:
            for (name, dtype), shape in zip(self._out, shapes, strict=True):
                output = memory.empty(shape, dtype)
                outputs.append(output)
                address = output.data_ptr() or memory.nowhere()
                if known.get(name) != address:
                    if not context.set_tensor_address(name, address):
                        raise errors.failure(self.name, self.opened.lib, slot.sizes)
                    known[name] = address
            if bytes_wanted <= SMALL_BYTES and not capturing:
                address = memory.small(stream)
            else:
                activations = memory.empty(
                    (bytes_wanted,), torch.uint8
                )  # alive until it is enqueued
                address = activations.data_ptr()
        except torch.OutOfMemoryError as err:
            raise errors.out_of_memory(self.name, self.device, bytes_wanted) from err
        if address != slot.memory and bytes_wanted:
            self.opened.set_memory(context, address, 0)
            slot.memory = address
        if not context.execute_async_v3(stream):
            raise errors.failure(self.name, self.opened.lib, slot.sizes)
        return outputs

    def _run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        stream = self._stream_of(self._index)
        kept, sizes = self.bound(inputs, stream)
        profile = self._profiles.get(sizes)
        if profile is None:
            profile = self.profile(sizes, dict(kept))
        capturing = self._capturing()
        slot = self.contexts.take(stream, profile, sizes, capturing=capturing)
        try:
            outputs = self.enqueue(slot, stream, kept, sizes, shapes)
        except BaseException:
            slot.forget()
            raise
        finally:
            if capturing:
                self._captured.append(slot)
            else:
                self.contexts.give(slot, stream)
        if self._plain_out:
            return outputs
        return [
            out.to(self.device, port.dtype) if port.other_type or port.binding.on_host else out
            for out, port in zip(outputs, self.outputs, strict=True)
        ]

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Time each layer; see `portrt.engines.base.Session`."""
        with torch.cuda.device(self._index):
            return layer_times(self, inputs, shapes, calls)
