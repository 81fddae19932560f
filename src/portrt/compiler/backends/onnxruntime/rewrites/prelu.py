"""Write PRelu with a product where its slopes may be infinite or NaN.

ONNX Runtime's kernel returns zeros as they are, where PyTorch multiplies them by the slope, which
makes NaN of 0 times infinity. It has no kernel for float64. Seen with 1.23 and 1.32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant, add_node, replace_node

# They return the elements of their first input.
_MOVES = {"Cast", "Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


def multiply_zeros_by_slopes(model: ir.Model, *, is_finite: Callable[[str], bool]) -> bool:
    """Rewrite PRelu, except where the slopes are finite weights.

    Args:
        model: Changed in place.
        is_finite: Whether all elements of a weight are finite, by its name.

    Returns:
        Whether anything was changed.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "PRelu" or node.domain:
            continue
        x, slope = node.inputs
        if x is None or (x.dtype != ir.DataType.DOUBLE and _has_finite_data(slope, is_finite)):
            continue
        _rewrite(node)
        changed = True
    return changed


def _has_finite_data(slope: ir.Value | None, is_finite: Callable[[str], bool]) -> bool:
    while slope is not None and slope.const_value is None:
        made = slope.producer()
        slope = made.inputs[0] if made is not None and made.op_type in _MOVES else None
    if slope is None:
        return False
    if isinstance(slope.const_value, ir.ExternalTensor):
        return is_finite(slope.name or "")
    assert slope.const_value is not None
    return bool(np.isfinite(slope.const_value.numpy().astype(np.float64)).all())


def _rewrite(node: ir.Node) -> None:
    x, slope = node.inputs
    assert x is not None
    assert x.dtype is not None
    zero = add_constant(node, ir.tensor(np.array(0, x.dtype.numpy())))
    positive = add_node(node, "Greater", [x, zero], dtype=ir.DataType.BOOL)
    scaled = add_node(node, "Mul", [x, slope], dtype=x.dtype)
    replace_node(node, add_node(node, "Where", [positive, x, scaled], dtype=x.dtype))
