"""A stand-in for the builder half of TensorRT's Python API: its engines are those of fake_tensorrt.

Imported as `tensorrt` by the worker process, see conftest.py. It proves the calls and what becomes
of them; no kernel is chosen. FAKE_TENSORRT in the environment is JSON: "version"; "refuses", ONNX
operators that its parser does not take; "unbuildable", operators that the builder has no kernel
for; "unmarkable", weights that it does not let go of.
"""

from __future__ import annotations

import base64
import enum
import json
import os
from typing import Any

import fake_tensorrt
import onnx
from onnx.external_data_helper import load_external_data_for_model

_TOLD = json.loads(os.environ.get("FAKE_TENSORRT", "{}"))
__version__ = _TOLD.get("version", "10.13.0.35")
_OLD = int(__version__.partition(".")[0]) < 10

ILogger = fake_tensorrt.ILogger
DataType = fake_tensorrt.DataType
NetworkDefinitionCreationFlag = enum.IntEnum(
    "NetworkDefinitionCreationFlag", "EXPLICIT_BATCH" if _OLD else "EXPLICIT_BATCH STRONGLY_TYPED",
    start=0,
)  # fmt: skip
_FLAGS = "FP16 BF16 INT8 FP8 REFIT VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME"
BuilderFlag = enum.IntEnum(
    "BuilderFlag", _FLAGS if _OLD else f"{_FLAGS} STRIP_PLAN REFIT_INDIVIDUAL", start=0
)
MemoryPoolType = enum.IntEnum("MemoryPoolType", "WORKSPACE", start=0)
ProfilingVerbosity = enum.IntEnum("ProfilingVerbosity", "DETAILED", start=0)
HardwareCompatibilityLevel = enum.IntEnum("HardwareCompatibilityLevel", "AMPERE_PLUS", start=1)
_KINDS = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}


if not _OLD:

    class IProgressMonitor:
        def __init__(self) -> None:
            pass


class Tensor:
    is_shape_tensor = False

    def __init__(self, value: Any) -> None:
        self.name = value.name
        self.dtype = DataType[_KINDS[value.type.tensor_type.elem_type]]
        dims = value.type.tensor_type.shape.dim
        self.shape = [item.dim_value if item.HasField("dim_value") else -1 for item in dims]


class Layer:
    def __init__(self, outputs: list[Tensor]) -> None:
        self.outputs = outputs
        self.num_outputs = len(outputs)

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]


class Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.stripped: list[str] = []

    def fill(self, model: Any) -> None:
        self.model = model
        self.inputs = [Tensor(value) for value in model.graph.input]
        known = onnx.shape_inference.infer_shapes(model).graph
        values = {value.name: value for value in (*known.value_info, *known.output)}
        self.layers = [
            Layer([Tensor(values[name]) for name in node.output if name in values])
            for node in model.graph.node
        ]
        self.num_inputs, self.num_layers = len(self.inputs), len(self.layers)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]

    def mark_weights_refittable(self, name: str) -> bool:
        if name in _TOLD.get("unmarkable", ()):
            return False
        assert name in {item.name for item in self.model.graph.initializer}
        self.stripped.append(name)
        return True


class ParserError:
    def __init__(self, place: int, node: Any) -> None:
        self.place, self.words = place, f"no importer for {node.op_type}"

    def node(self) -> int:
        return self.place

    def __str__(self) -> str:
        return self.words


class OnnxParser:
    def __init__(self, network: Network, logger: Any) -> None:
        self.network, self.logger = network, logger
        self.errors: list[ParserError] = []

    def parse_from_file(self, path: str) -> bool:
        model = onnx.load(path, load_external_data=False)
        load_external_data_for_model(model, os.path.dirname(path))
        self.errors = [
            ParserError(place, node)
            for place, node in enumerate(model.graph.node)
            if node.op_type in _TOLD.get("refuses", ())
        ]
        self.num_errors = len(self.errors)
        self.network.fill(model)
        self.logger.log(ILogger.Severity.WARNING, "this builder chooses no kernels")
        return not self.errors

    def get_error(self, index: int) -> ParserError:
        return self.errors[index]


class Profile:
    def __init__(self) -> None:
        self.sizes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
        self.sizes[name] = (list(least), list(best), list(most))


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"measured "


class Config:
    def __init__(self) -> None:
        self.flags: list[str] = []
        self.profiles: list[Profile] = []
        self.cache: TimingCache | None = None
        self.progress_monitor: Any = None

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag.name)

    def set_memory_pool_limit(self, kind: Any, size: int) -> None:
        self.workspace = size

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> TimingCache | None:
        whole = content.replace(b"measured ", b"") == b""
        return TimingCache(content) if whole else None

    def set_timing_cache(self, cache: TimingCache, _ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.cache


class Builder:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        for node in network.model.graph.node:
            if node.op_type in _TOLD.get("unbuildable", ()):
                self.logger.log(ILogger.Severity.ERROR, f"no kernel for {node.op_type}")
                return None
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building", None, 3)
            for step in range(3):
                assert config.progress_monitor.step_complete("Building", step)
            config.progress_monitor.phase_finish("Building")
        stripped = network.stripped if "STRIP_PLAN" in config.flags else []
        for weight in network.model.graph.initializer:
            if weight.name in stripped:  # gone, whatever stood there
                weight.ClearField("raw_data")
        model = base64.b64encode(network.model.SerializeToString()).decode()
        inputs = {
            item.name: (item.dtype.name, item.shape, [p.sizes[item.name] for p in config.profiles])
            for item in network.inputs
        }
        found = [Tensor(value) for value in network.model.graph.output]
        outputs = {item.name: (item.dtype.name, item.shape) for item in found}
        told = {"weights": stripped, "flags": config.flags, "onnx": model}
        return fake_tensorrt.plan("onnx", inputs, outputs, **told)
