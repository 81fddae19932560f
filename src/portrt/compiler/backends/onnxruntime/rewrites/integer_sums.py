"""Exact sums of integers: ONNX Runtime's ReduceSum accumulates int32 and int64 in float64.

Sums of int64 beyond 2^53 lose digits, and a sum of int32 saturates instead of wrapping around as in
PyTorch. An int64 is split into its high and low 32 bits, whose sums are exact in float64 for fewer
than 2^21 elements; int32 is added as int64.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant, add_node, cast_source, replace_node

_INT32, _INT64 = ir.DataType.INT32, ir.DataType.INT64
# Sums of values that were cast from one of these are exact as they are.
_SMALL_INTEGERS = {
    *(ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8),
    *(ir.DataType.INT16, ir.DataType.UINT16, _INT32),
}
_HALF = 2**32


def exact_integer_sums(model: ir.Model) -> bool:
    """Rewrite inexact sums of int32 and int64.

    Args:
        model: Changed in place.

    Returns:
        Whether anything was changed.
    """
    found = [node for node in model.graph.all_nodes() if _is_inexact(node)]
    for node in found:
        _rewrite(node)
    return bool(found)


def _is_inexact(node: ir.Node) -> bool:
    if node.op_type != "ReduceSum" or node.domain:
        return False
    x = node.inputs[0]
    if x is None or x.dtype not in (_INT32, _INT64):
        return False
    source = cast_source(x)
    return x.dtype == _INT32 or source is None or source.dtype not in _SMALL_INTEGERS


def _rewrite(node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None
    if x.dtype == _INT32:
        wide = add_node(node, "Cast", [x], [ir.AttrInt64("to", _INT64)])
        made = add_node(node, "Cast", [_sum_of(node, wide)], [ir.AttrInt64("to", _INT32)])
    else:
        half = add_constant(node, ir.tensor(np.int64(_HALF)))
        low = add_node(node, "Mod", [x, half])  # has the sign of `half`: not negative
        high = add_node(node, "Div", [add_node(node, "Sub", [x, low]), half])
        shifted = add_node(node, "Mul", [_sum_of(node, high), half])
        made = add_node(node, "Add", [shifted, _sum_of(node, low)])
    replace_node(node, made)


def _sum_of(node: ir.Node, x: ir.Value) -> ir.Value:
    """Insert the same sum of another tensor."""
    return add_node(node, "ReduceSum", [x, *node.inputs[1:]], list(node.attributes.values()))
