"""Quantization as PyTorch's exported models have it, to ONNX's QuantizeLinear.

torch.onnx overlooks the range that numbers are rounded into: int8 from -127 to 127, as symmetric
quantizers have it, would become -128 to 127. The input is cut to that range before, which leaves
QuantizeLinear and DequantizeLinear the neighbours that engine builders look for.
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
    """`quantized_decomposed::quantize_per_tensor`."""
    if _RANGES.get(int(dtype)) != (quant_min, quant_max):
        low, high = ((bound - zero_point) * scale for bound in (quant_min, quant_max))
        input = op.Clip(input, op.CastLike(low, input), op.CastLike(high, input))  # noqa: A001
    zero = op.Constant(value=ir.tensor(zero_point, dtype=ir.DataType(dtype)))
    return op.QuantizeLinear(input, op.CastLike(scale, input), zero)


def built_in() -> tuple[tuple[Any, Callable[..., Any]], ...]:
    """The translations of this module; none where torch no longer has the operators."""
    import torch

    try:
        import torch.ao.quantization.fx._decomposed  # it defines them
    except ImportError:
        return ()
    return ((torch.ops.quantized_decomposed.quantize_per_tensor.default, quantize_per_tensor),)
