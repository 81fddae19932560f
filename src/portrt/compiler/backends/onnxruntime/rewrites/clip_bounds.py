"""Give infinite bounds to Clip where it has none: ONNX Runtime makes infinities finite there.

Its kernel takes the largest finite numbers for the bounds that a node leaves out. Seen with 1.23
and 1.32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant

_FLOATS = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
_BOUNDS = ((1, -np.inf), (2, np.inf))  # positions of the lower and the upper one


def infinite_bounds(model: ir.Model) -> bool:
    """Add the bounds that are left out of Clip nodes of floats.

    Args:
        model: Changed in place.

    Returns:
        Whether anything was changed.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        x = node.inputs[0] if node.op_type == "Clip" and not node.domain else None
        if x is None or x.dtype not in _FLOATS:
            continue
        given = len(node.inputs)
        for place, bound in _BOUNDS:
            if place < given and node.inputs[place] is not None:
                continue
            if place >= len(node.inputs):
                node.resize_inputs(place + 1)
            made = add_constant(node, ir.tensor(np.array(bound, x.dtype.numpy())))
            node.replace_input_with(place, made)
            changed = True
    return changed
