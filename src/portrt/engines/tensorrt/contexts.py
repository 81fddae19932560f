"""Execution contexts of an opened engine, and which call may use which."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from portrt.engines.cuda.capture_guard import alone_on
from portrt.engines.tensorrt.dynamic_outputs import TorchOutput
from portrt.engines.tensorrt.engine import OpenedEngine
from portrt.engines.tensorrt.release import end_on

_MAX_CONTEXTS = 32


@dataclass(eq=False)
class Slot:
    """An execution context and the state that was last set on it. Used by one call at a time.

    Attributes:
        context: TensorRT's execution context.
        device: Device of the context.
        profile: Index of its optimization profile.
        sizes: Sizes of the inputs in its last run; None if it has not run.
        addresses: Binding -> address that was last set.
        memory: Address of its activations.
        outputs: Binding -> allocator of a data-dependent output.
        known_shapes: Binding -> shape of an output that follows from the values of shape tensors.
        max_bytes: Binding -> upper bound of a data-dependent output; None before the first call,
            which may query the context.
    """

    context: Any
    device: torch.device
    profile: int
    sizes: Any = None
    addresses: dict[str, int] = field(default_factory=dict)
    memory: int = 0
    outputs: dict[str, TorchOutput] = field(default_factory=dict)
    known_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    max_bytes: dict[str, int] | None = None

    def __del__(self) -> None:
        end_on(self.device, self, "context")

    def forget(self) -> None:
        """Forget cached addresses and shapes; after a failure the context's state is unknown."""
        self.sizes = None
        self.addresses.clear()
        self.memory = 0


class Contexts:
    """Contexts by stream and profile: the work of a context on one stream is in order.

    Args:
        opened: The engine that creates them.

    Attributes:
        idle: (stream, profile) -> contexts that no call uses. Taking one is one atomic step.
        captured: Contexts in CUDA graphs of the caller, whose lifetime is unknown: never reused.
    """

    def __init__(self, opened: OpenedEngine) -> None:
        self._opened = opened
        self.idle: dict[tuple[int, int], list[Slot]] = {}
        self.captured: list[Slot] = []
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()  # wherever they are
        self._lock = threading.Lock()

    def take(self, stream: int, profile: int, sizes: Any, *, capturing: bool = False) -> Slot:
        """Take an idle context for this stream, or create one.

        Args:
            stream: Handle of the stream that it will run on.
            profile: Index of the optimization profile.
            sizes: Sizes of the inputs of the call.
            capturing: Whether the stream is being captured: a context that has run with these sizes
                is preferred, since it neither allocates nor synchronizes.

        Raises:
            EngineError: There is too little GPU memory for another context.
        """
        idle = None if capturing else self.idle.get((stream, profile))
        if idle:
            try:
                return idle.pop()  # one atomic step; another thread may have been faster
            except IndexError:
                pass
        return self._take_slowly(stream, profile, sizes, capturing=capturing)

    def _take_slowly(self, stream: int, profile: int, sizes: Any, *, capturing: bool) -> Slot:
        """Take a context under the lock.

        Needed for the first call of a stream or profile, and for more concurrent calls than before.
        """
        with self._lock:
            slot = None
            if capturing:
                # The device was idle when the capture began, or it would not have begun.
                slot = self._withdraw(lambda it: it.profile == profile and it.sizes == sizes)
                slot = slot or self._withdraw(lambda it: it.profile == profile)
            elif len(self._slots) >= _MAX_CONTEXTS:
                slot = self._withdraw(lambda it: it.profile == profile)
                if slot is not None:  # it gets no more work; let it finish its own
                    with alone_on(self._opened.device):
                        torch.cuda.synchronize(self._opened.device)
            if slot is None:
                opened = self._opened
                slot = Slot(opened.new_context(profile, stream), opened.device, profile)
                self._slots.add(slot)
            return slot

    def _withdraw(self, fits: Callable[[Slot], bool]) -> Slot | None:
        """Remove an idle context of any stream from its list, and return it."""
        for slots in list(self.idle.values()):
            for slot in list(slots):
                if fits(slot):
                    try:
                        slots.remove(slot)
                    except ValueError:  # another thread took it meanwhile
                        continue
                    return slot
        return None

    def give(self, slot: Slot, stream: int) -> None:
        """Return a context, whose last work is on this stream."""
        key = (stream, slot.profile)
        idle = self.idle.get(key)
        if idle is None:
            idle = self.idle.setdefault(key, [])
        idle.append(slot)
