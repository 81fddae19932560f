"""Torch-TensorRT's names over portrt: `import portrt.torch_tensorrt as torch_tensorrt`.

docs/torch_tensorrt.md has a table of its names and parameters. Options and names of portrt that
Torch-TensorRT lacks are in `portrt` itself, and `compile` takes them, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from portrt.torch_internals.dynamo import register_backends
from portrt.torch_tensorrt import dynamo, logging, runtime
from portrt.torch_tensorrt.devices import Device
from portrt.torch_tensorrt.enums import (
    DeviceType,
    EngineCapability,
    Platform,
    dtype,
    memory_format,
)
from portrt.torch_tensorrt.files import load, load_cross_compiled_exported_program, save
from portrt.torch_tensorrt.frontend import (
    backend,
    compile,  # noqa: A004  (Torch-TensorRT's name)
    cross_compile_for_windows,
    torch_compile,
)
from portrt.torch_tensorrt.inputs import Input
from portrt.torch_tensorrt.missing import missing
from portrt.torch_tensorrt.mutable import MutableTorchTensorRTModule
from portrt.torch_tensorrt.options import NoEffectWarning
from portrt.torch_tensorrt.runtime import (
    enable_cudagraphs,
    enable_output_allocator,
    enable_pre_allocated_outputs,
    get_cudagraphs_mode,
    get_whole_cudagraphs_mode,
    optimization_profile,
    set_cudagraphs_mode,
    set_multi_device_safe_mode,
    weight_streaming,
)
from portrt.torch_tensorrt.serialized_engine import convert_method_to_trt_engine


class FeatureSet(NamedTuple):
    """Which parts of Torch-TensorRT have a counterpart here."""

    torchscript_frontend: bool = False
    torch_tensorrt_runtime: bool = True
    dynamo_frontend: bool = True
    fx_frontend: bool = False
    refit: bool = True
    qdp_plugin: bool = False
    windows_cross_compile: bool = True
    tensorrt_rtx: bool = True
    trtllm_for_nccl: bool = False
    native_trt_collectives: bool = False
    complex_decomposition: bool = True


ENABLED_FEATURES = FeatureSet()

register_backends({"torch_tensorrt": backend, "tensorrt": backend})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("portrt")
    raise missing(name)


__all__ = [
    "ENABLED_FEATURES",
    "Device",
    "DeviceType",
    "EngineCapability",
    "Input",
    "MutableTorchTensorRTModule",
    "NoEffectWarning",
    "Platform",
    "compile",
    "convert_method_to_trt_engine",
    "cross_compile_for_windows",
    "dtype",
    "dynamo",
    "enable_cudagraphs",
    "enable_output_allocator",
    "enable_pre_allocated_outputs",
    "get_cudagraphs_mode",
    "get_whole_cudagraphs_mode",
    "load",
    "load_cross_compiled_exported_program",
    "logging",
    "memory_format",
    "optimization_profile",
    "runtime",
    "save",
    "set_cudagraphs_mode",
    "set_multi_device_safe_mode",
    "torch_compile",
    "weight_streaming",
]


def __dir__() -> list[str]:
    return __all__
