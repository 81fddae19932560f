"""An engine deserialized on one device: its bindings, optimization profiles and contexts."""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from portrt import forks
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
# First release with one memory size per profile, which is passed when the memory is set. Before,
# one size holds for all profiles.
_NEW_MEMORY = (10, 1)

# First release where contexts can share a profile. Before, one context uses a profile at a time,
# unless the engine was built with profile sharing, which the engine does not report.
_SHARED_PROFILES = (9,)
_ALLOCATORS = (10,)
_ONE_EACH = "in TensorRT 8.6 contexts share no profile unless the engine was built with sharing"

Sizes = tuple[int, ...]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Binding:
    """An input or output of the engine.

    Attributes:
        name: Name in the engine.
        dtype: The type that the engine reads or writes.
        on_host: Whether the engine reads it from CPU memory, because its values determine shapes.
        rank: Number of dimensions.
        profiles: Of an input: min and max sizes in each optimization profile. Of a shape tensor:
            its min and max values; of its first elements alone, where the library reports no more.
    """

    name: str
    dtype: torch.dtype
    on_host: bool
    rank: int
    profiles: tuple[tuple[Sizes, Sizes], ...]


class OpenedEngine:
    """A deserialized engine. Safe to use from several threads.

    Args:
        lib: Library that runs it.
        runtime: Runtime of the library that deserializes it.
        data: The serialized engine.
        built: TensorRT release whose interface it has, such as (8, 6, 0): as a rule the release
            that built it.
        device: A CUDA device with its index.
        weights: Weights that the engine was built without.

    Raises:
        EngineError: The library cannot deserialize the engine; the message quotes its log.
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
        # Whether contexts cannot share a profile; None until a second context is needed.
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
        """Return whether data-dependent outputs work.

        TensorRT requests their memory through an interface that changed with TensorRT 10. Seen: an
        engine of 8.6 that calls the interface of 10.16 crashes the process.
        """
        return self._built >= _ALLOCATORS or self.requests_too_little

    @property
    def requests_too_little(self) -> bool:
        """Return whether the library may write more to a data-dependent output than it requested.

        Seen: 8.6 requests the size of the previous run's output.
        """
        return self._old_library

    def _deserialized(self) -> Any:
        """Deserialize the engine and refit its weights; None if the library cannot."""
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
                self._value_bounds(name, index)
                if on_host
                else engine.get_tensor_profile_shape(name, index)
            )
            profiles.append((tuple(bounds[0]), tuple(bounds[2])) if bounds else ((), ()))
        rank = len(engine.get_tensor_shape(name))
        return Binding(name, _DTYPES[kind], on_host, rank, tuple(profiles))

    def _value_bounds(self, name: str, profile: int) -> Any:
        """Return min, opt and max values of a shape tensor, as far as the library reports them.

        Seen: 8.6 reports one of two elements, and 10.16 reports none of an engine of 8.6.
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
            warnings.simplefilter("ignore", DeprecationWarning)  # its successor needs newer ones
            return int(self.engine.device_memory_size)

    def new_context(self, profile: int, stream: int) -> Any:
        """Create an execution context of one profile, without memory of its own.

        Raises:
            EngineError: The library returns none, as a rule for lack of GPU memory.
        """
        self.lib.clear_log()
        with self._making:
            context = self._another_context(profile, stream)
        if context is None:
            raise _refusal(self.lib, self.device, self.memory_bytes[profile])
        return context

    def _another_context(self, profile: int, stream: int) -> Any:
        """Create a context of the engine, or of a copy where contexts share no profile; or None."""
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
        """Find out whether contexts can share a profile: if not, a second new one has none.

        Setting the profile would not do. Seen: 8.6 rejects one that another context has, and
        crashes.

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
        logger.info("each further context uses a copy of the engine: %s", _ONE_EACH)

    def _context_of(self, engine: Any, profile: int, stream: int) -> Any:
        """Create a context of one profile, or return None."""
        context = self._bare_context(engine)
        if context is None or context.active_optimization_profile == profile:
            return context
        try:
            return context if context.set_optimization_profile_async(profile, stream) else None
        except RuntimeError:  # how the Python bindings report failure
            return None

    def _bare_context(self, engine: Any) -> Any:
        if self._new_memory:
            strategy = self.lib.module.ExecutionContextAllocationStrategy.USER_MANAGED
            return engine.create_execution_context(strategy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the only way for older engines
            return engine.create_execution_context_without_device_memory()

    def set_memory(self, context: Any, address: int, profile: int) -> None:
        """Set the memory for a context's activations."""
        if self._new_memory:
            context.set_device_memory(address, self.memory_bytes[profile])
        else:
            context.device_memory = address


_engines: weakref.WeakValueDictionary[tuple[Any, ...], OpenedEngine] = weakref.WeakValueDictionary()
_opening = forks.renewed(threading.Lock())


def open_engine(
    lib: Library,
    runtime: Any,
    data: torch.Tensor,
    sha256: str,
    built: Sequence[int],
    device: torch.device,
    weights: EngineWeights | None = None,
) -> OpenedEngine:
    """Open an engine, or return the one that is open with these bytes and weights.

    Programs share an opened engine as long as one of them is alive.

    Args:
        lib: Library that runs it.
        runtime: Runtime of the library that deserializes it.
        data: The serialized engine.
        sha256: Digest of `data`, which was checked.
        built: TensorRT release whose interface it has, see `OpenedEngine`.
        device: A CUDA device with its index.
        weights: Weights that the engine was built without.

    Raises:
        EngineError: The library cannot deserialize the engine.
    """
    weights = weights or EngineWeights({})
    key = (lib.name, sha256, weights.digest, device.index or 0, id(runtime))
    with _opening:
        found = _engines.get(key)
        if found is None:
            found = _engines[key] = OpenedEngine(lib, runtime, data, built, device, weights)
        return found


def as_bytes(data: torch.Tensor) -> memoryview:
    """View a blob as bytes."""
    array: Any = data.numpy()
    return memoryview(array)


def _refusal(lib: Library, device: torch.device, wanted_bytes: int) -> EngineError:
    free, total = torch.cuda.mem_get_info(device)
    memory = f"{free / 2**20:.0f} of {total / 2**20:.0f} MiB of GPU memory are free"
    return EngineError(
        f"{lib.name} {lib.version} cannot open the engine ({wanted_bytes / 2**20:.1f} MiB; "
        f"{memory}){lib.recent_log()}",
        "an engine for this GPU and this release, and enough GPU memory",
        "`portrt check FILE` lists what the engine needs; free GPU memory if there is too little",
    )
