"""Write rows of an inner dimension where they are, without two transposes of the whole tensor.

`x[:, :, positions] = rows`, as a key-value cache is updated, is translated to a ScatterND of the
first dimension between two Transpose nodes: three copies of the cache for a row of it. A ScatterND
with the indices of the outer dimensions as well copies the tensor at most once, and not at all
where its output is bound to the memory of its input.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant, add_node, replace_node

# Rows below this size are written one number after another, which the transposes are faster for.
_MIN_ROW = 8
# Their indices are constants of the engine.
_MAX_OUTER = 1024


def scatter_rows(model: ir.Model) -> bool:
    """Rewrite a Transpose to the front, ScatterND, and the Transpose back.

    The sizes of the other dimensions must be known, and the rows have at least 8 numbers.

    Args:
        model: Changed in place.

    Returns:
        Whether anything was changed.
    """
    found = [node for node in model.graph.all_nodes() if node.op_type == "ScatterND"]
    changed = [_rewrite(node) for node in found]
    return any(changed)


def _rewrite(node: ir.Node) -> bool:
    data, indices, updates = node.inputs
    back = _only_user(node)
    if data is None or indices is None or node.domain or back is None:
        return False
    reduction = node.attributes.get("reduction")
    if reduction is not None and reduction.as_string() != "none":
        return False
    front = data.producer()
    order, restored = _order(front), _order(back)
    if front is None or order is None or restored is None or not order:
        return False
    axis = order[0]
    rest = [dim for dim in range(len(order)) if dim != axis]
    if axis == 0 or order != [axis, *rest] or restored != np.argsort(order).tolist():
        return False
    x = front.inputs[0]
    if x is None or x.shape is None or indices.shape is None or len(indices.shape) != 2:
        return False
    known = [size if isinstance(size, int) else 0 for size in x.shape]
    outer, row = known[:axis], known[axis + 1 :]
    if indices.shape[1] != 1 or 0 in outer or 0 in row:
        return False
    if np.prod(row) < _MIN_ROW or np.prod(outer) > _MAX_OUTER:
        return False
    # [*outer, 1, axis], repeated for each of the positions, and the positions behind it.
    places = np.moveaxis(np.indices(outer, np.int64), 0, -1)
    grid = add_constant(back, ir.tensor(np.ascontiguousarray(places[..., None, :])))
    count = add_node(back, "Shape", [indices], [ir.AttrInt64("end", 1)])
    ones = add_constant(back, ir.tensor(np.ones(axis, np.int64)))
    one = add_constant(back, ir.tensor(np.ones(1, np.int64)))
    along = add_node(back, "Concat", [ones, count, one], [ir.AttrInt64("axis", 0)])
    wide = add_node(back, "Expand", [grid, along])
    sizes = add_constant(back, ir.tensor(np.array([*outer, 1, 1], np.int64)))
    positions = add_node(back, "Expand", [indices, sizes])
    full = add_node(back, "Concat", [wide, positions], [ir.AttrInt64("axis", -1)])
    rows = add_node(back, "Transpose", [updates], [ir.AttrInt64s("perm", restored)])
    replace_node(back, add_node(back, "ScatterND", [x, full, rows]))
    for unused in (node, front):
        if not unused.outputs[0].uses() and not unused.outputs[0].is_graph_output():
            assert unused.graph is not None
            unused.graph.remove(unused, safe=True)
    return True


def _only_user(node: ir.Node) -> ir.Node | None:
    (made,) = node.outputs
    users = made.uses()
    return None if len(users) != 1 or made.is_graph_output() else next(iter(users)).node


def _order(node: ir.Node | None) -> list[int] | None:
    """Return the order of dimensions of a Transpose."""
    if node is None or node.op_type != "Transpose" or "perm" not in node.attributes:
        return None
    return list(node.attributes["perm"].as_ints())
