"""A stand-in for the runtime half of TensorRT's Python API, computing with numpy on the CPU.

A fake proves the calls, not the numbers of a GPU: it keeps every call, refuses what TensorRT
refuses, and reads and writes the addresses that it is given, so that a wrong address, size or order
shows as a wrong number. That a GPU computes what these engines stand for is shown in tests/gpu.

Its engines are JSON, see `plan`. CPU memory stands for that of the GPU, and an address that is
given twice is as good as one: test_session.py has what torch needs for that.
"""

from __future__ import annotations

import base64
import ctypes
import enum
import json
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

Severity = enum.IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)
TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT", start=0)
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST", start=0)
DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4", start=0)
ExecutionContextAllocationStrategy = enum.Enum(
    "ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED", start=0
)
_NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


def plan(
    op: str,
    inputs: Mapping[str, tuple[str, Sequence[int], Sequence[Sequence[Sequence[int]]]]],
    outputs: Mapping[str, tuple[str, Sequence[Any]]],
    **more: Any,
) -> bytes:
    """An engine.

    Args:
        op: Key of `OPERATIONS`.
        inputs: Name -> type, shape with -1, and (min, opt, max) in each profile.
        outputs: Name -> type and shape; a size is a number, -1 where only a run tells, or
            [input, axis], or ["value", input, place].
        more: "memory": bytes of activations in each profile; "host": inputs and outputs that are on
            the host; "refused": what the library says instead of opening it; "needs": what it is
            only opened with ("host_code", "lean"); "weights": names that are to be refitted.
    """
    return json.dumps({"op": op, "inputs": inputs, "outputs": outputs, **more}).encode()


class Part:
    """Something of a library: its calls are kept there."""

    library: Any

    def note(self, method: str, *args: Any) -> None:
        self.library.calls.append((self, method, *args))


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.initialized = True


class IOutputAllocator:
    def __init__(self) -> None:
        self.initialized = True


class IProfiler:
    def __init__(self) -> None:
        self.initialized = True


class Weights:
    def __init__(self, dtype: DataType, address: int, count: int) -> None:
        kind = np.dtype(_NUMPY[dtype.name])
        raw = (ctypes.c_char * (count * kind.itemsize)).from_address(address)
        self.values = np.frombuffer(bytes(raw), kind)
        self.dtype, self.size = dtype, count


class Runtime(Part):
    def __init__(self, logger: ILogger) -> None:
        assert logger.initialized
        self.logger = logger
        self.lean: str | None = None
        self.engine_host_code_allowed = False
        self.note("Runtime")

    def load_runtime(self, path: str) -> Runtime | None:
        self.note("load_runtime", path, self.engine_host_code_allowed)
        if not path.endswith(".so.8"):
            self.logger.log(Severity.ERROR, f"no such library: {path}")  # type: ignore[attr-defined]
            return None
        loaded: Runtime = self.library.Runtime(self.logger)
        loaded.lean = path
        return loaded

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        self.note("deserialize_cuda_engine")
        made = json.loads(bytes(serialized_engine))
        words = made.get("refused")
        if "lean" in made.get("needs", ()) and not self.lean:
            words = "the lean runtime is missing"
        if "host_code" in made.get("needs", ()) and not self.engine_host_code_allowed:
            words = "host code is not allowed"
        if words:
            self.logger.log(Severity.ERROR, words)  # type: ignore[attr-defined]
            return None
        engine: ICudaEngine = self.library.ICudaEngine(made, self.logger)
        return engine


class ICudaEngine(Part):
    def __init__(self, made: dict[str, Any], logger: Any) -> None:
        self.made, self.logger = made, logger
        self.weights: dict[str, Any] = dict.fromkeys(made.get("weights", ()))
        self.names = [*made["inputs"], *made["outputs"]]
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = len(next(iter(made["inputs"].values()))[2])
        self.free_profiles = list(range(self.num_optimization_profiles))

    def entry(self, name: str) -> Any:
        return self.made["inputs"].get(name) or self.made["outputs"][name]

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.made["inputs"] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.entry(name)[0]]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self.made.get("host", ()) else TensorLocation.DEVICE

    def get_tensor_vectorized_dim(self, name: str) -> int:
        return int(self.made.get("vectorized", {}).get(name, -1))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.entry(name)[1])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert self.get_tensor_location(name) is TensorLocation.DEVICE
        return [tuple(sizes) for sizes in self.made["inputs"][name][2][profile_index]]

    def get_tensor_profile_values(self, name: int, profile_index: str) -> list[list[int]]:
        """With its arguments the other way round than they are named, as TensorRT has it."""
        assert self.get_tensor_location(profile_index) is TensorLocation.HOST
        return [list(numbers) for numbers in self.made["inputs"][profile_index][2][name]]

    def get_profile_shape_input(self, profile: int, binding: str) -> list[list[int]]:
        """The way of 8.6, which tells as many numbers as the tensor has dimensions."""
        rank = len(self.get_tensor_shape(binding))
        return [numbers[:rank] for numbers in self.get_tensor_profile_values(profile, binding)]

    @property
    def device_memory_size(self) -> int:
        return max(self.made.get("memory", [0]))

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        assert not self.made.get("old"), "the plan is too old for it"
        return int(self.made.get("memory", [0] * 9)[profile_index])

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> IExecutionContext | None:
        assert not self.made.get("old"), "the plan is too old for it"
        return self._context("create_execution_context", strategy.name)

    def create_execution_context_without_device_memory(self) -> IExecutionContext | None:
        return self._context("create_execution_context_without_device_memory")

    def _context(self, *how: Any) -> IExecutionContext | None:
        self.note(*how)
        if self.library.contexts_left == 0:
            self.logger.log(Severity.ERROR, "out of memory for another context")
            return None
        self.library.contexts_left -= 1
        context: IExecutionContext = self.library.IExecutionContext(self)
        return context


class IExecutionContext(Part):
    """Every method fails when another thread is in one of this context."""

    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        self.profile = 0
        if engine.made.get("one_each"):  # as TensorRT 8.6 builds them, unless asked otherwise
            self.profile = engine.free_profiles.pop(0) if engine.free_profiles else -1
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.values: dict[str, list[int]] = {}
        self.allocators: dict[str, Any] = {}
        self.written: dict[str, int] = {}  # bytes of outputs that an allocator gave memory for
        self.most: dict[str, int] = {}  # the same at most, of those that were asked about
        self.ran: dict[str, tuple[int, ...]] = {}  # the shapes of the last run
        self.computed: dict[str, tuple[int, ...]] = {}  # what it computes with, if not `shapes`
        self.memory = (0, 0)
        self._alone = threading.Lock()

    @contextmanager
    def use(self, method: str, *args: Any) -> Iterator[None]:
        self.note(method, *args)
        if not self._alone.acquire(blocking=False):
            self.library.shared.append(method)
            raise AssertionError(f"{method}: two threads use one context")
        try:
            yield
        finally:
            self._alone.release()

    def _no(self, words: str) -> bool:
        self.engine.logger.log(Severity.ERROR, words)
        return False

    @property
    def active_optimization_profile(self) -> int:
        return self.profile

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        with self.use("set_optimization_profile_async", profile_index, stream_handle):
            if self.engine.made.get("one_each"):
                if profile_index not in self.engine.free_profiles:
                    # 8.6 itself ends the process here.
                    assert not self.library.__version__.startswith("8."), "a segmentation fault"
                    raise RuntimeError("the profile is in use by another context")
                self.engine.free_profiles.remove(profile_index)
                if self.profile >= 0:
                    self.engine.free_profiles.append(self.profile)
            self.profile = profile_index
            self.shapes.clear()
            return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        with self.use("set_input_shape", name, shape):
            bounds = self.engine.made["inputs"][name][2][self.profile]
            if self.engine.get_tensor_location(name) is TensorLocation.DEVICE and bounds:
                least, _, most = bounds
                if len(shape) != len(least) or not all(
                    low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
                ):
                    return self._no(f"{name} {shape} is not in profile {self.profile}")
            if self.shapes.get(name) != tuple(shape):
                self.shapes[name], self.computed = tuple(shape), {}
            return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        with self.use("set_tensor_address", name, memory):
            if not memory:
                return self._no(f"no address for {name}")
            self.addresses[name] = memory
            self.values.pop(name, None)  # the numbers of a shape tensor are read once
            return True

    def get_max_output_size(self, name: str) -> int:
        """Seen with 8.6: the next run computes with the sizes of the last one all the same."""
        with self.use("get_max_output_size", name):
            if self.ran and self._is_8():
                self.computed = self.ran
            self.most[name] = max(self.most.get(name, 0), self._most(name))
            return self._most(name)

    def _is_8(self) -> bool:
        return str(self.library.__version__).startswith("8.")

    def _most(self, name: str) -> int:
        """Each number of the inputs may be found once, and a place has a number for each axis."""
        kind = np.dtype(_NUMPY[self.engine.entry(name)[0]])
        given = [self._shape(other) for other in self.engine.made["inputs"]]
        return sum(int(np.prod(shape)) * max(len(shape), 1) for shape in given) * kind.itemsize

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator) -> bool:
        with self.use("set_output_allocator", name):
            assert output_allocator.initialized
            self.allocators[name] = output_allocator
            return True

    def set_device_memory(self, memory: int, size: int) -> None:
        with self.use("set_device_memory", memory, size):
            assert not self.engine.made.get("old"), "the plan is too old for it"
            self.memory = (memory, size)

    @property
    def device_memory(self) -> int:
        return self.memory[0]

    @device_memory.setter
    def device_memory(self, memory: int) -> None:
        with self.use("device_memory", memory):
            self.memory = (memory, self.engine.device_memory_size)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        with self.use("get_tensor_shape", name):
            return self._shape(name)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name in self.engine.made["inputs"]:
            return self.shapes[name]
        return tuple(self._size(size) for size in self.engine.made["outputs"][name][1])

    def _size(self, size: Any) -> int:
        if isinstance(size, int):
            return size
        if size[0] != "value":
            return self.shapes[size[0]][size[1]]
        if size[1] not in self.addresses:
            return -1
        return self._values(size[1])[size[2]]

    def _values(self, name: str) -> list[int]:
        if name not in self.values:
            self.values[name] = self._array(name).flatten().tolist()
        return self.values[name]

    def _array(self, name: str) -> Any:
        kind = np.dtype(_NUMPY[self.engine.entry(name)[0]])
        shape = self._shape(name)
        count = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        raw = (ctypes.c_char * max(count, 1)).from_address(self.addresses[name])
        return np.frombuffer(raw, kind, count // kind.itemsize).reshape(shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        with self.use("execute_async_v3", stream_handle):
            self.library.executed.append((self, dict(self.addresses), self.memory))
            return self._execute(stream_handle)

    def _execute(self, stream: int) -> bool:
        made = self.engine.made
        unset = [name for name in made["inputs"] if name not in self.addresses]
        unset += [name for name in made["inputs"] if name not in self.shapes]
        given_to = {**self.addresses, **self.allocators}
        unset += [name for name in made["outputs"] if name not in given_to]
        if unset:
            return self._no(f"not set: {unset}")
        wanted = made.get("memory", [0] * 9)[self.profile]
        if wanted and (not self.memory[0] or self.memory[1] < wanted):
            return self._no("no device memory")
        if [name for name, value in self.engine.weights.items() if value is None]:
            return self._no("weights were not refitted")
        if self.library.fails:
            return self._no(self.library.fails.pop(0))
        given = [
            np.array(self._values(name)) if name in made.get("host", ()) else self._array(name)
            for name in made["inputs"]
        ]
        for place, name in enumerate(made["inputs"]):
            stale = self.computed.get(name)
            if stale is not None and given[place].shape != stale:
                given[place] = np.resize(given[place], stale)
        self.ran, self.computed = dict(self.shapes), {}
        results = OPERATIONS[made["op"]](self.engine, given)
        return all(
            self._write(name, np.asarray(result), stream)
            for name, result in zip(made["outputs"], results, strict=True)
        )

    def _write(self, name: str, result: Any, stream: int) -> bool:
        allocator = self.allocators.get(name)
        if allocator is not None:
            kind = np.dtype(_NUMPY[self.engine.entry(name)[0]])
            size = result.size * kind.itemsize
            asked = size
            if self._is_8():  # the first time for as much as there may be, then for what was before
                asked = self.written.get(name, self._most(name))
            address = allocator.reallocate_output_async(name, 0, asked, 256, stream)
            if not address:
                return self._no(f"no memory for {name}")
            self.written[name] = size
            there = max(asked, self.most.get(name, 0))  # more is not known to be there
            allocator.notify_shape(name, result.shape)
            ctypes.memmove(address, result.astype(kind).tobytes(), min(size, there))
            return True
        target = self._array(name)
        if target.shape != result.shape:
            return self._no(f"{name} is {result.shape}, expected {target.shape}")
        target[...] = result
        return True


class Refitter(Part):
    def __init__(self, engine: ICudaEngine, logger: Any) -> None:
        self.engine, self.logger = engine, logger
        self.given: dict[str, Any] = {}

    def get_all_weights(self) -> list[str]:
        return list(self.engine.weights)

    def get_missing_weights(self) -> list[str]:
        return [name for name in self.engine.weights if name not in self.given]

    def set_named_weights(self, name: str, weights: Weights) -> bool:
        self.note("set_named_weights", name, weights.size)
        if name not in self.engine.weights:
            self.logger.log(Severity.ERROR, f"no weights {name}")
            return False
        self.given[name] = weights.values
        return True

    def refit_cuda_engine(self) -> bool:
        self.note("refit_cuda_engine")
        if self.get_missing_weights():
            self.logger.log(Severity.ERROR, "weights are missing")
            return False
        self.engine.weights.update(self.given)
        return True


def _run_onnx(engine: ICudaEngine, given: list[Any]) -> list[Any]:
    import onnx
    import onnxruntime

    model = onnx.load_from_string(base64.b64decode(engine.made["onnx"]))
    for weight in model.graph.initializer:
        if weight.name in engine.weights:
            values = engine.weights[weight.name].reshape(weight.dims)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found: list[Any] = session.run(None, dict(zip(engine.made["inputs"], given, strict=True)))
    return found


OPERATIONS: dict[str, Callable[[ICudaEngine, list[Any]], list[Any]]] = {
    "plus one": lambda _, given: [given[0] + 1],
    "sum": lambda _, given: [sum(given)],
    "nonzero": lambda _, given: [np.argwhere(given[0])],
    "fill": lambda _, given: [np.full(given[1], given[0].flat[0])],
    "times weights": lambda engine, given: [given[0] * engine.weights["w"]],
    "onnx": _run_onnx,
}

_CLASSES = (
    *(ILogger, IOutputAllocator, IProfiler, Weights, TensorIOMode, TensorLocation, DataType),
    ExecutionContextAllocationStrategy,
)
_PARTS = (Runtime, ICudaEngine, IExecutionContext, Refitter)
# What TensorRT keeps for its older engines, and TensorRT-RTX never had.
OLDER = (
    "device_memory_size",
    "create_execution_context_without_device_memory",
    "get_profile_shape_input",
)


class _Missing:
    def __get__(self, *_: Any) -> Any:
        raise AttributeError("TensorRT-RTX does not have it")


def fake_library(name: str = "tensorrt", version: str = "10.13.0.35") -> Any:
    """A module with calls of its own.

    Beside TensorRT's names it has `calls`, `executed` (context, addresses and memory of each run),
    `shared` (methods in which two threads met), and what a test sets: `fails` (words of the runs
    that are to fail next) and `contexts_left`.
    """
    module: Any = types.ModuleType(name)
    module.__version__ = version
    module.calls, module.executed, module.shared, module.fails = [], [], [], []
    module.contexts_left = 1000
    for item in _CLASSES:
        setattr(module, item.__name__, item)
    for item in _PARTS:
        own: dict[str, Any] = {"library": module}
        if name == "tensorrt_rtx":
            own |= {method: _Missing() for method in OLDER if hasattr(item, method)}
        setattr(module, item.__name__, type(item.__name__, (item,), own))
    return module
