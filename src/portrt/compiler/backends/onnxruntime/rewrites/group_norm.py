"""Rewrite GroupNormalization by InstanceNormalization, for which ONNX Runtime has a kernel.

ONNX Runtime has no CPU kernel for GroupNormalization and expands it to a dozen operators that each
go through memory. Groups as the channels of an instance norm take 0.6 of the time, see
`benchmarks/composites.py`. The expanded form subtracts the square of the mean from the mean of the
squares, which loses the variance of large numbers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant, add_node, replace_node


def group_norm_by_instance_norm(model: ir.Model) -> bool:
    """Rewrite group norms of float32 and float16 at opset 21 or newer.

    In older opsets a group norm has a scale per group, not per channel. float16 is computed in
    float32, as ONNX Runtime computes it anyway.

    Args:
        model: Changed in place.

    Returns:
        Whether anything was changed.
    """
    if model.opset_imports.get("", 0) < 21:
        return False
    found = [
        node
        for node in model.graph.all_nodes()
        if node.op_type == "GroupNormalization" and not node.domain
    ]
    for node in found:
        _rewrite(node)
    return bool(found)


def _rewrite(node: ir.Node) -> None:
    x, scale, bias = node.inputs
    if x is None or x.shape is None or x.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        return
    dtype, rank = x.dtype, len(x.shape)
    if dtype != ir.DataType.FLOAT:
        to_float = [ir.AttrInt64("to", ir.DataType.FLOAT)]
        x, scale, bias = (add_node(node, "Cast", [value], to_float) for value in node.inputs)
    groups = node.attributes["num_groups"].as_int()
    epsilon = node.attributes.get("epsilon") or ir.AttrFloat32("epsilon", 1e-5)
    shape = add_constant(node, ir.tensor(np.array([0, groups, -1])))
    folded = add_node(node, "Reshape", [x, shape])
    ones, zeros = (
        add_constant(node, ir.tensor(np.full(groups, fill, np.float32))) for fill in (1, 0)
    )
    normed = add_node(node, "InstanceNormalization", [folded, ones, zeros], [epsilon])
    made = add_node(node, "Reshape", [normed, add_node(node, "Shape", [x])])
    inner = add_constant(node, ir.tensor(np.arange(1, rank - 1)))
    for kind, operand in (("Mul", scale), ("Add", bias)):
        spread = operand if rank == 2 else add_node(node, "Unsqueeze", [operand, inner])
        made = add_node(node, kind, [made, spread])
    if dtype != ir.DataType.FLOAT:
        made = add_node(node, "Cast", [made], [ir.AttrInt64("to", dtype)])
    replace_node(node, made)
