"""An engine that was deserialized on one device: its bindings, its profiles and its contexts."""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from portrt.engines.tensorrt.libraries import Library, interface_of
from portrt.engines.tensorrt.refit import EngineWeights, refit
from portrt.engines.tensorrt.release import end_on
from portrt.errors import EngineError

# TensorRT's name of a type -> torch's.
_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "FP8": torch.float8_e4m3fn,
}
# Engines of older releases have one size for all profiles, and set their memory without a size.
_NEW_MEMORY = (10, 1)

# Engines of older releases let one context use a profile at a time, unless they were asked to share
# when they were built, which shows only when one tries.
_SHARED_PROFILES = (9,)
_ALLOCATORS = (10,)
_ONE_EACH = "TensorRT 8.6 let one context use a profile; build again, with profiles that are shared"

Sizes = tuple[int, ...]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Binding:
    """An input or output as the engine has it.

    Attributes:
        name: Its name in the engine.
        dtype: The type that the engine reads or writes.
        on_host: Whether the engine wants it in CPU memory, for its numbers decide shapes.
        rank: Number of dimensions.
        profiles: For an input: smallest and largest sizes in each profile. Of a shape tensor: its
            smallest and largest numbers, the first ones, as many as are known.
    """

    name: str
    dtype: torch.dtype
    on_host: bool
    rank: int
    profiles: tuple[tuple[Sizes, Sizes], ...]


class OpenedEngine:
    """A deserialized engine. Safe to use from several threads.

    Args:
        lib: Who runs it.
        runtime: One of its runtimes.
        data: The engine.
        built: TensorRT whose interface it has, as a rule the release that built it: (8, 6, 0).
        device: A CUDA device with its index.
        weights: What the engine lacks.

    Raises:
        EngineError: The library refuses the engine; the message has the library's words.
    """

    def __init__(
        self,
        lib: Library,
        runtime: Any,
        data: torch.Tensor,
        built: Sequence[int],
        device: torch.device,
        weights: EngineWeights,
    ) -> None:
        self.lib = lib
        self.device = device
        self._runtime = runtime
        self._data = data
        self._weights = weights
        lib.clear_log()
        self.engine: Any = self._deserialized()
        if self.engine is None:
            raise _refusal(lib, device, len(data))
        self._built = tuple(built)
        self._old_library = interface_of(lib.name, lib.version) < _ALLOCATORS
        self._making = threading.Lock()
        self._in_use = False
        # Whether contexts cannot share a profile; None as long as nobody needs to know.
        self._one_each: bool | None = None if self._old_library else False
        self._new_memory = tuple(built[:2]) >= _NEW_MEMORY
        count = self.engine.num_io_tensors
        names = [self.engine.get_tensor_name(index) for index in range(count)]
        mode = lib.module.TensorIOMode
        self.inputs = {n: self._binding(n) for n in names if self._mode(n) == mode.INPUT}
        self.outputs = {n: self._binding(n) for n in names if self._mode(n) == mode.OUTPUT}
        self.profile_count: int = self.engine.num_optimization_profiles
        self.memory_bytes = [self._memory_bytes(index) for index in range(self.profile_count)]

    def __del__(self) -> None:
        end_on(self.device, self, "engine")

    @property
    def allocates_outputs(self) -> bool:
        """Whether an output of unknown size can be had: TensorRT asks for its memory, through an
        interface that changed with TensorRT 10. Seen: an engine of 8.6 that asks the interface of
        10.16 crashes the process."""
        return self._built >= _ALLOCATORS or self.asks_too_little

    @property
    def asks_too_little(self) -> bool:
        """Whether the library may write more to an output of unknown size than it asked for.

        Seen: 8.6 asks for what the last run wrote, whatever this one finds.
        """
        return self._old_library

    def _deserialized(self) -> Any:
        """The engine with all its weights, or None."""
        with torch.cuda.device(self.device):
            engine = self._runtime.deserialize_cuda_engine(as_bytes(self._data))
            if engine is not None:
                refit(self.lib, engine, self._weights)
            return engine

    def _mode(self, name: str) -> Any:
        return self.engine.get_tensor_mode(name)

    def _binding(self, name: str) -> Binding:
        engine, trt = self.engine, self.lib.module
        kind = engine.get_tensor_dtype(name).name
        if kind not in _DTYPES or engine.get_tensor_vectorized_dim(name) != -1:
            raise EngineError(
                f"the engine's {name!r} is {kind} in a layout that torch does not have",
                "inputs and outputs of a linear layout and a type that torch has",
                "build the engine with linear inputs and outputs",
            )
        is_input = self._mode(name) == trt.TensorIOMode.INPUT
        on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
        profiles = []
        for index in range(engine.num_optimization_profiles if is_input else 0):
            bounds = (
                self._bounds_of_numbers(name, index)
                if on_host
                else engine.get_tensor_profile_shape(name, index)
            )
            profiles.append((tuple(bounds[0]), tuple(bounds[2])) if bounds else ((), ()))
        rank = len(engine.get_tensor_shape(name))
        return Binding(name, _DTYPES[kind], on_host, rank, tuple(profiles))

    def _bounds_of_numbers(self, name: str, profile: int) -> Any:
        """Smallest, usual and largest numbers of a shape tensor: as many as the library tells.

        Seen: 8.6 tells one of two, and 10.16 none of an engine of 8.6.
        """
        if hasattr(self.engine, "get_tensor_profile_values"):
            return self.engine.get_tensor_profile_values(profile, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 8.6 has nothing else
            return self.engine.get_profile_shape_input(profile, name)

    def _memory_bytes(self, profile: int) -> int:
        if self._new_memory:
            return int(self.engine.get_device_memory_size_for_profile_v2(profile))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its successor is for newer plans
            return int(self.engine.device_memory_size)

    def new_context(self, profile: int, stream: int) -> Any:
        """An execution context of one profile, without memory of its own.

        Raises:
            EngineError: The library gives none, as a rule for want of GPU memory.
        """
        self.lib.clear_log()
        with self._making:
            context = self._another_context(profile, stream)
        if context is None:
            raise _refusal(self.lib, self.device, self.memory_bytes[profile])
        return context

    def _another_context(self, profile: int, stream: int) -> Any:
        """A context of the engine, or of a copy where contexts do not share profiles; or None."""
        if self._one_each is None and self._in_use and not self._shares():
            self._use_copies()
        context = None if self._one_each else self._context_of(self.engine, profile, stream)
        if context is None and self._built < _SHARED_PROFILES:
            copy = self._deserialized()
            context = None if copy is None else self._context_of(copy, profile, stream)
            if context is not None and not self._one_each:
                self._use_copies()
        self._in_use = self._in_use or context is not None
        return context

    def _shares(self) -> bool:
        """Whether contexts can share a profile, by two new ones: else the second has none.

        Not by asking for it. Seen: 8.6 says no to a profile that another context has, and crashes.

        Raises:
            EngineError: There is too little GPU memory for them.
        """
        first, second = self._bare_context(self.engine), self._bare_context(self.engine)
        if first is None or second is None:
            raise _refusal(self.lib, self.device, self.memory_bytes[0])
        if second.active_optimization_profile < 0:
            return False
        self._one_each = False
        return True

    def _use_copies(self) -> None:
        self._one_each = True
        logger.info("each further context takes a copy of the engine: %s", _ONE_EACH)

    def _context_of(self, engine: Any, profile: int, stream: int) -> Any:
        """A context of one profile, or None."""
        context = self._bare_context(engine)
        if context is None or context.active_optimization_profile == profile:
            return context
        try:
            return context if context.set_optimization_profile_async(profile, stream) else None
        except RuntimeError:  # the bindings' way of saying no
            return None

    def _bare_context(self, engine: Any) -> Any:
        if self._new_memory:
            strategy = self.lib.module.ExecutionContextAllocationStrategy.USER_MANAGED
            return engine.create_execution_context(strategy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # older plans know this way alone
            return engine.create_execution_context_without_device_memory()

    def set_memory(self, context: Any, address: int, profile: int) -> None:
        """Give a context the memory for its activations."""
        if self._new_memory:
            context.set_device_memory(address, self.memory_bytes[profile])
        else:
            context.device_memory = address


_engines: weakref.WeakValueDictionary[tuple[Any, ...], OpenedEngine] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_engine(
    lib: Library,
    runtime: Any,
    data: torch.Tensor,
    sha256: str,
    built: Sequence[int],
    device: torch.device,
    weights: EngineWeights | None = None,
) -> OpenedEngine:
    """The opened engine of these bytes and weights; programs share it as long as one of them lives.

    Args:
        lib: Who runs it.
        runtime: One of its runtimes.
        data: The engine.
        sha256: Its digest, which was checked.
        built: As for `OpenedEngine`.
        device: A CUDA device with its index.
        weights: Those that the engine lacks.

    Raises:
        EngineError: The library refuses the engine.
    """
    weights = weights or EngineWeights({})
    key = (lib.name, sha256, weights.digest, device.index or 0, id(runtime))
    with _opening:
        found = _engines.get(key)
        if found is None:
            found = _engines[key] = OpenedEngine(lib, runtime, data, built, device, weights)
        return found


def as_bytes(data: torch.Tensor) -> memoryview:
    """A view of a blob."""
    array: Any = data.numpy()
    return memoryview(array)


def _refusal(lib: Library, device: torch.device, wanted_bytes: int) -> EngineError:
    free, total = torch.cuda.mem_get_info(device)
    memory = f"{free / 2**20:.0f} of {total / 2**20:.0f} MiB of GPU memory are free"
    return EngineError(
        f"{lib.name} {lib.version} cannot open the engine ({wanted_bytes / 2**20:.1f} MiB; "
        f"{memory}){lib.recent_log()}",
        "an engine for this GPU and this release, and enough GPU memory",
        "`portrt check FILE` tells what the engine needs; free GPU memory if there is too little",
    )
