"""The execution contexts of an opened engine: who may use which, and when."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from portrt.engines.tensorrt.capture_guard import alone_on
from portrt.engines.tensorrt.dynamic_outputs import TorchOutput
from portrt.engines.tensorrt.engine import OpenedEngine
from portrt.engines.tensorrt.release import end_on

_MAX_CONTEXTS = 32


@dataclass(eq=False)
class Slot:
    """An execution context and what it was last told. Used by one call at a time.

    Attributes:
        context: TensorRT's.
        device: The context's.
        profile: Index of its optimization profile.
        sizes: Of the inputs, as it last ran; None if it never did.
        addresses: Binding -> address.
        memory: Address of its activations.
        outputs: Binding -> what allocates an output whose size only the run tells.
        told: Binding -> shape of an output whose size the numbers of shape tensors tell.
        most_bytes: Binding -> what an output of unknown size holds at most; None before the first
            call, which may ask the context.
    """

    context: Any
    device: torch.device
    profile: int
    sizes: Any = None
    addresses: dict[str, int] = field(default_factory=dict)
    memory: int = 0
    outputs: dict[str, TorchOutput] = field(default_factory=dict)
    told: dict[str, tuple[int, ...]] = field(default_factory=dict)
    most_bytes: dict[str, int] | None = None

    def __del__(self) -> None:
        end_on(self.device, self, "context")

    def forget(self) -> None:
        """Take nothing for told any more: after a failure nobody knows what the context knows."""
        self.sizes = None
        self.addresses.clear()
        self.memory = 0


class Contexts:
    """Contexts by stream and profile: what a context does on one stream is in order.

    Args:
        opened: Makes them.

    Attributes:
        idle: (stream, profile) -> contexts that no call uses. Taking one is one atomic step.
        captured: Contexts in graphs of the caller, whose end is not known.
    """

    def __init__(self, opened: OpenedEngine) -> None:
        self._opened = opened
        self.idle: dict[tuple[int, int], list[Slot]] = {}
        self.captured: list[Slot] = []
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()  # wherever they are
        self._lock = threading.Lock()

    def take(self, stream: int, profile: int, sizes: Any, *, capturing: bool = False) -> Slot:
        """An idle context for this stream, or a new one.

        Args:
            stream: Where it will run.
            profile: Its profile.
            sizes: What it will run with.
            capturing: Whether the stream is captured: a context that has run with these sizes is
                preferred, since it will neither allocate nor wait.

        Raises:
            EngineError: There is too little GPU memory for another one.
        """
        idle = None if capturing else self.idle.get((stream, profile))
        if idle:
            try:
                return idle.pop()  # one atomic step; another thread may have been faster
            except IndexError:
                pass
        return self._take_slowly(stream, profile, sizes, capturing=capturing)

    def _take_slowly(self, stream: int, profile: int, sizes: Any, *, capturing: bool) -> Slot:
        """Rarely: the first call of a stream, of a profile, or more calls at once than before."""
        with self._lock:
            slot = None
            if capturing:
                # The device was idle when the capture began, or it would not have begun.
                slot = self._withdraw(lambda it: it.profile == profile and it.sizes == sizes)
                slot = slot or self._withdraw(lambda it: it.profile == profile)
            elif len(self._slots) >= _MAX_CONTEXTS:
                slot = self._withdraw(lambda it: it.profile == profile)
                if slot is not None:  # nobody can give it more to do; let it end what it has
                    with alone_on(self._opened.device):
                        torch.cuda.synchronize(self._opened.device)
            if slot is None:
                opened = self._opened
                slot = Slot(opened.new_context(profile, stream), opened.device, profile)
                self._slots.add(slot)
            return slot

    def _withdraw(self, fits: Callable[[Slot], bool]) -> Slot | None:
        """An idle context of any stream, which from now on is nobody else's."""
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
        """Give a context back, which is or was used on this stream."""
        key = (stream, slot.profile)
        idle = self.idle.get(key)
        if idle is None:
            idle = self.idle.setdefault(key, [])
        idle.append(slot)
