"""Give rows of attention whose mask is the lowest number the results that PyTorch gives them.

ONNX Runtime's Attention of float32 and float16 takes the lowest finite number of a mask for minus
infinity, and returns zeros for a row that has nothing else, where PyTorch returns a mean of the
values. Seen with 1.23 and 1.32; its Attention of float64 is right.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant, add_node, replace_node

_MASK = 3
_WIDENED = range(4)  # query, key, value and mask


def finite_attention_masks(model: ir.Model) -> bool:
    """Halve the lowest numbers of float32 masks; compute attention of float16 in float32.

    Scores of any size vanish beside half of float32's lowest number, too. They do not beside
    float16's, so that PyTorch's results, which it computes in float32, need its precision.

    Args:
        model: Changed in place.

    Returns:
        Whether anything was changed.
    """
    made: dict[tuple[ir.Value, ir.Graph], ir.Value] = {}
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Attention" or node.domain or len(node.inputs) <= _MASK:
            continue
        mask = node.inputs[_MASK]
        if mask is not None and mask.dtype == ir.DataType.FLOAT:
            node.replace_input_with(_MASK, _halved(node, mask, made))
            changed = True
        elif mask is not None and mask.dtype == ir.DataType.FLOAT16 and len(node.inputs) == 4:
            _widen(node)
            changed = True
    return changed


def _halved(
    node: ir.Node, mask: ir.Value, made: dict[tuple[ir.Value, ir.Graph], ir.Value]
) -> ir.Value:
    """Return the mask without the lowest number; nodes of one graph share it."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if (mask, graph) not in made:
        lowest = float(np.finfo(np.float32).min)
        bound, half = (
            add_constant(node, ir.tensor(fill)) for fill in (lowest, np.float32(lowest / 2))
        )
        found = add_node(node, "Where", [add_node(node, "Equal", [mask, bound]), half, mask])
        found.shape, found.dtype = mask.shape, ir.DataType.FLOAT
        made[mask, graph] = found
    return made[mask, graph]


def _widen(node: ir.Node) -> None:
    wide = [
        add_node(node, "Cast", [node.inputs[index]], [ir.AttrInt64("to", ir.DataType.FLOAT)])
        for index in _WIDENED
    ]
    found = add_node(node, "Attention", wide, list(node.attributes.values()))
    dtype = ir.AttrInt64("to", ir.DataType.FLOAT16)
    replace_node(node, add_node(node, "Cast", [found], [dtype]))
