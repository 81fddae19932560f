"""ONNX Runtime's names of torch's types, and its values over torch's memory."""

from __future__ import annotations

from typing import Any

import torch

# TensorProto.DataType of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
ELEMENT_TYPES = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.uint16: 4,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
    torch.uint32: 12,
    torch.uint64: 13,
    torch.bfloat16: 16,
    torch.float8_e4m3fn: 17,
    torch.float8_e5m2: 19,
}
# ONNX Runtime's names of them.
TYPE_NAMES = {
    torch.float32: "tensor(float)",
    torch.uint8: "tensor(uint8)",
    torch.int8: "tensor(int8)",
    torch.int16: "tensor(int16)",
    torch.int32: "tensor(int32)",
    torch.int64: "tensor(int64)",
    torch.bool: "tensor(bool)",
    torch.float16: "tensor(float16)",
    torch.float64: "tensor(double)",
    torch.bfloat16: "tensor(bfloat16)",
    torch.float8_e4m3fn: "tensor(float8e4m3fn)",
}
# NumPy lacks some of the types; a value needs an array of elements of the same size alone.
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def value_over(tensor: torch.Tensor) -> Any:
    """Wrap the memory of a contiguous CPU tensor as an `onnxruntime.OrtValue`, without a copy."""
    import onnxruntime

    array: Any = tensor.view(_SAME_SIZE[tensor.element_size()]).numpy()
    # Not `from_dlpack`, which 1.23 does not have: the newest release for Python 3.10.
    make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
    return make(array, ELEMENT_TYPES[tensor.dtype])
