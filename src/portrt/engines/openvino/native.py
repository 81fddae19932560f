"""Compiles OpenVINO engines over the weights image, without a copy of the weights.

OpenVINO reads external weights of an ONNX model from files alone. An engine's model has its weights
as inputs instead; once it is read, each such input is replaced by a constant over the memory of the
image. Seen with 2026.4.1: filling four weights of 64 MiB takes no memory, compiling them once their
size, for the order in which the kernels read.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch

from portrt import forks
from portrt.format.onnx_wire import external_fault
from portrt.weights import WeightsImage

logger = logging.getLogger(__name__)

# Names of `openvino.Type`, in the order of torch's.
_TYPES = {
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.bool: "boolean",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}
# NumPy has no bfloat16; a tensor over its memory needs an array of elements of the same size.
_AS_BITS = {torch.bfloat16: torch.int16}

_lock = forks.renewed(threading.Lock())
_core: list[Any] = []
_left: list[Any] = []  # the core of the process that forked this one


def core() -> Any:
    """Return OpenVINO's core; it is made once in a process, and takes 20 ms."""
    with _lock:
        if not _core:
            import openvino

            _core.append(openvino.Core())
        return _core[0]


def leave_core() -> None:
    """In a forked child: leave the core to the parent, whose threads it has."""
    _left.extend(_core)  # never ended
    _core.clear()


def is_left_to_parent() -> bool:
    """Return whether this process was forked from one that had used OpenVINO.

    Its pool of threads is one of a process: in the child, another core waits for threads that only
    the parent has, for ever.
    """
    return bool(_left)


def type_of(dtype: torch.dtype) -> Any:
    """Return OpenVINO's type for a dtype.

    Raises:
        KeyError: It has none that its CPU plugin computes in full.
    """
    import openvino

    return getattr(openvino.Type, _TYPES[dtype])


def tensor_over(tensor: torch.Tensor) -> Any:
    """Wrap the memory of a contiguous CPU tensor as an `openvino.Tensor`, without a copy."""
    import openvino

    bits = _AS_BITS.get(tensor.dtype)
    if bits is None:
        return openvino.Tensor(tensor.numpy(), shared_memory=True)
    array = tensor.view(bits).numpy()
    return openvino.Tensor(array, openvino.Shape(list(tensor.shape)), type_of(tensor.dtype))


def compiled_model(
    data: bytes, weights: Sequence[str], image: WeightsImage | None, precision: str
) -> Any:
    """Read a model, fill in its weights, and compile it for this CPU.

    Args:
        data: The ONNX model, whose weights are inputs.
        weights: Names of the weights that it takes.
        image: Weights image that holds them; must live as long as the result.
        precision: What products and convolutions are computed in: "f32" or "bf16".

    Raises:
        ValueError: The model names a file, or an address, which OpenVINO would read.
    """
    if fault := external_fault(data, ()):
        raise ValueError(f"the model {fault}")
    model = core().read_model(data)
    if weights:
        assert image is not None  # decode() checked it
        _fill(model, set(weights), image)
    return core().compile_model(model, "CPU", _options(precision))


def _fill(model: Any, weights: set[str], image: WeightsImage) -> None:
    from openvino import op

    for parameter in list(model.get_parameters()):
        name = parameter.get_friendly_name()
        if name not in weights:
            continue
        constant = op.Constant(tensor_over(image.tensor(name)))
        constant.set_friendly_name(name)
        parameter.output(0).replace(constant.output(0))
        model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()


def _options(precision: str) -> dict[str, Any]:
    """Return the properties of a compilation.

    For eager's numbers: by default OpenVINO computes in bfloat16, and quantizes activations and the
    caches of attention to 8 bits, where the CPU is fast at it. It has one stream, whose threads are
    not pinned to cores: those of torch run on the same cores in turn. Its own cache of compiled
    models is not used: of a model of 256 MiB, reading took 0.6 s, where compiling takes 0.3 s.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


def library_version() -> str:
    """Return the version of the imported library, such as "2026.4.1"."""
    found = str(getattr(sys.modules.get("openvino"), "__version__", "unknown"))
    return found.partition("-")[0]
