"""Translations of `quantized_decomposed` operators to QuantizeLinear, and of `_int_mm`.

torch.onnx ignores quant_min and quant_max: int8 from -127 to 127, as symmetric quantizers have it,
would become -128 to 127. So the input is clipped before; QuantizeLinear and DequantizeLinear stay
adjacent, the pattern that engine builders match.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxscript import ir
from onnxscript import opset18 as op
from onnxscript.onnx_types import TensorType

_RANGES = {
    int(ir.DataType.INT8): (-128, 127),
    int(ir.DataType.UINT8): (0, 255),
    int(ir.DataType.INT16): (-32768, 32767),
    int(ir.DataType.UINT16): (0, 65535),
}


def quantize_per_tensor(
    input: TensorType,  # noqa: A002  (the operator's names)
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: int,
) -> TensorType:
    """Translate `quantized_decomposed::quantize_per_tensor`."""
    if _RANGES.get(int(dtype)) != (quant_min, quant_max):
        low, high = ((bound - zero_point) * scale for bound in (quant_min, quant_max))
        input = op.Clip(input, op.CastLike(low, input), op.CastLike(high, input))  # noqa: A001
    zero = op.Constant(value=ir.tensor(zero_point, dtype=ir.DataType(dtype)))
    return op.QuantizeLinear(input, op.CastLike(scale, input), zero)


def quantize_per_tensor_tensor(
    input: TensorType,  # noqa: A002
    scale: TensorType,
    zero_point: TensorType,
    quant_min: int,
    quant_max: int,
    dtype: int,
) -> TensorType:
    """Translate `quantized_decomposed::quantize_per_tensor.tensor`."""
    scale = op.CastLike(op.Squeeze(scale), input)
    zero_point = op.Squeeze(zero_point)
    if _RANGES.get(int(dtype)) != (quant_min, quant_max):
        input = _clipped(input, scale, zero_point, quant_min, quant_max)  # noqa: A001
    return op.QuantizeLinear(input, scale, op.Cast(zero_point, to=int(dtype)))


def dequantize_per_tensor_tensor(
    input: TensorType,  # noqa: A002
    scale: TensorType,
    zero_point: TensorType,
    quant_min: int,  # noqa: ARG001
    quant_max: int,  # noqa: ARG001
    dtype: int,
    out_dtype: int | None = None,
) -> TensorType:
    """Translate `quantized_decomposed::dequantize_per_tensor.tensor`; torch.onnx fails on it."""
    scale = op.Cast(op.Squeeze(scale), to=int(ir.DataType.FLOAT))
    wide = op.DequantizeLinear(input, scale, op.Cast(op.Squeeze(zero_point), to=int(dtype)))
    return wide if out_dtype is None else op.Cast(wide, to=int(out_dtype))


def quantize_per_channel(
    input: TensorType,  # noqa: A002
    scales: TensorType,
    zero_points: TensorType,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: int,
) -> TensorType:
    """Translate `quantized_decomposed::quantize_per_channel`."""
    scales = op.CastLike(scales, input)
    if _RANGES.get(int(dtype)) != (quant_min, quant_max):
        others = [i for i in range(len(input.shape)) if i != axis % len(input.shape)]
        spread, zeros = (
            op.Unsqueeze(item, op.Constant(value_ints=others)) if others else item
            for item in (scales, zero_points)
        )
        input = _clipped(input, spread, zeros, quant_min, quant_max)  # noqa: A001
    return op.QuantizeLinear(input, scales, op.Cast(zero_points, to=int(dtype)), axis=axis)


def dequantize_per_channel(
    input: TensorType,  # noqa: A002
    scales: TensorType,
    zero_points: TensorType | None,
    axis: int,
    quant_min: int,  # noqa: ARG001
    quant_max: int,  # noqa: ARG001
    dtype: int,
    out_dtype: int | None = None,
) -> TensorType:
    """Translate `quantized_decomposed::dequantize_per_channel` with float32 scales.

    torch.onnx keeps the float64 scales, which ONNX's DequantizeLinear does not take.
    """
    scales = op.Cast(scales, to=int(ir.DataType.FLOAT))
    zeros = [] if zero_points is None else [op.Cast(zero_points, to=int(dtype))]
    wide = op.DequantizeLinear(input, scales, *zeros, axis=axis)
    return wide if out_dtype is None else op.Cast(wide, to=int(out_dtype))


def _clipped(x: TensorType, scale: TensorType, zero: TensorType, low: int, high: int) -> TensorType:
    """Clip to the float range of the quantizer; the bounds may differ by channel."""
    zero = op.CastLike(zero, scale)
    bounds = [
        op.Mul(op.Sub(op.CastLike(op.Constant(value_float=float(b)), scale), zero), scale)
        for b in (low, high)
    ]
    return op.Min(op.Max(x, bounds[0]), bounds[1])


def int_mm(self: TensorType, mat2: TensorType) -> TensorType:
    """Translate `aten::_int_mm`."""
    return op.MatMulInteger(self, mat2)


def built_in() -> tuple[tuple[Any, Callable[..., Any]], ...]:
    """Return the translations of this module, for the operators that this torch has."""
    import torch

    found: list[tuple[Any, Callable[..., Any]]] = [(torch.ops.aten._int_mm.default, int_mm)]
    try:
        import torch.ao.quantization.fx._decomposed  # it defines the operators
    except ImportError:
        return tuple(found)
    known = torch.ops.quantized_decomposed
    found += [
        (known.quantize_per_tensor.default, quantize_per_tensor),
        (known.quantize_per_tensor.tensor, quantize_per_tensor_tensor),
        (known.dequantize_per_tensor.tensor, dequantize_per_tensor_tensor),
        (known.quantize_per_channel.default, quantize_per_channel),
        (known.dequantize_per_channel.default, dequantize_per_channel),
    ]
    return tuple(found)
