"""Calls with int8 and float8 tensors that engines can hold: conversions and quantized dataflow.

ONNX Runtime converts by Cast. TensorRT supports these dtypes only between QuantizeLinear and
DequantizeLinear; `backends/tensorrt/explicit_quantization.py` writes them instead of conversions.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from portrt.graphs.quantized_dtypes import LAYOUTS, QUANTIZED

aten = torch.ops.aten
_CONVERT = aten._to_copy.default
_FLOATS = frozenset({torch.float32, torch.float16, torch.bfloat16})
# Smallest and largest value, and whether all values are integers.
_RANGES = {
    torch.int8: (-128.0, 127.0, True),
    torch.float8_e4m3fn: (-448.0, 448.0, False),
}
_UNKNOWN = (-math.inf, math.inf, False)


def is_quantized_conversion(node: torch.fx.Node) -> bool:
    """Return whether a node converts between float and int8 or float8 with equal results in ONNX.

    Results differ for values out of range, which are NaN or undefined in PyTorch, and for
    fractions, which QuantizeLinear rounds and PyTorch truncates. So both must be excluded by what
    is known of the values.
    """
    if node.target is not _CONVERT or set(node.kwargs) - {"dtype", "pin_memory"}:
        return False
    taken, made = _dtype(node.args[0]), _dtype(node)
    if taken in QUANTIZED:
        return made in _FLOATS
    if made not in QUANTIZED or taken not in _FLOATS:
        return False
    low, high, is_integer = _RANGES[made]
    value_low, value_high, has_integers = _range(node.args[0])
    return low <= value_low and value_high <= high and (has_integers or not is_integer)


def is_quantized_dataflow(node: torch.fx.Node) -> bool:
    """Return whether the users of a node's int8 or float8 result can all take it in an engine.

    Products of int8 matrices are int32, which engines convert to float32 at once.
    """
    if node.target is aten._int_mm.default:
        signed = all(_dtype(item) == torch.int8 for item in node.args)
        return signed and all(
            user.target is _CONVERT and _dtype(user) == torch.float32 for user in node.users
        )
    if node.target not in LAYOUTS or _dtype(node) not in QUANTIZED:
        return False
    return all(is_quantized_conversion(user) or is_quantized_dataflow(user) for user in node.users)


def _range(node: Any) -> tuple[float, float, bool]:
    """Return bounds of a node's values, and whether all of them are known to be integers."""
    if isinstance(node, (int, float)):
        return float(node), float(node), float(node).is_integer()
    if not isinstance(node, torch.fx.Node):
        return _UNKNOWN
    if _dtype(node) in _RANGES:
        return _RANGES[_dtype(node)]
    target, args = node.target, node.args
    if target in LAYOUTS or target is _CONVERT:
        return _range(args[0])
    if target is aten.round.default:
        low, high, _ = _range(args[0])
        return low, high, True
    if target in (aten.add.Tensor, aten.sub.Tensor) and not node.kwargs:
        return -math.inf, math.inf, _range(args[0])[2] and _range(args[1])[2]
    if target is aten.full_like.default:
        return _range(args[1])
    if target is aten.clamp.default and len(args) == 3:
        return _clamped(args)
    return _UNKNOWN


def _clamped(args: Any) -> tuple[float, float, bool]:
    source, low, high = args
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float)) and low <= high):
        return _UNKNOWN
    is_integral = _range(source)[2] and float(low).is_integer() and float(high).is_integer()
    return float(low), float(high), is_integral


def _dtype(node: Any) -> Any:
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None
