"""Compute small integers and bools in a wider dtype where ONNX Runtime's CPU kernels lack theirs.

Seen with ONNX Runtime 1.23 and 1.32. The operators choose elements, so that no number changes, or
are products, whose lower bits are the same in a wider dtype.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_node, replace_node

_INT16, _BOOL = ir.DataType.INT16, ir.DataType.BOOL
# Operator -> dtype without a kernel -> dtype with one.
WIDER: Mapping[str, Mapping[ir.DataType, ir.DataType]] = {
    "Where": {_INT16: ir.DataType.INT32, _BOOL: ir.DataType.UINT8},
    "Max": {_INT16: ir.DataType.INT32},
    "Min": {_INT16: ir.DataType.INT32},
    "MatMul": dict.fromkeys((_INT16, ir.DataType.INT8, ir.DataType.UINT8), ir.DataType.INT32),
}


def widen_missing_kernels(model: ir.Model) -> bool:
    """Put the operators that lack a kernel between casts.

    Args:
        model: Changed in place.

    Returns:
        Whether anything was changed.
    """
    found = [node for node in model.graph.all_nodes() if _wider(node) is not None]
    for node in found:
        _rewrite(node)
    return bool(found)


def _chosen(node: ir.Node) -> list[ir.Value | None]:
    """Return the inputs that have the dtype of the output."""
    return list(node.inputs[1:] if node.op_type == "Where" else node.inputs)


def _wider(node: ir.Node) -> ir.DataType | None:
    dtypes = {value.dtype for value in _chosen(node) if value is not None}
    known = dtypes.pop() if len(dtypes) == 1 else None
    return None if node.domain or known is None else WIDER.get(node.op_type, {}).get(known)


def _rewrite(node: ir.Node) -> None:
    wider, output = _wider(node), node.outputs[0]
    inputs = _chosen(node)
    narrow = next(value.dtype for value in inputs if value is not None)
    assert wider is not None and narrow is not None
    cast = [add_node(node, "Cast", [value], [ir.AttrInt64("to", wider)]) for value in inputs]
    chosen = add_node(node, node.op_type, [*node.inputs[: -len(inputs)], *cast], (), wider)
    made = add_node(node, "Cast", [chosen], [ir.AttrInt64("to", narrow)], output.dtype)
    replace_node(node, made)
