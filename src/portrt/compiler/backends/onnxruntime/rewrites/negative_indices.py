"""Refuse negative indices where PyTorch does: ONNX counts them from the end.

The sign bit is cleared of indices that may be negative, which makes -1 the largest integer: ONNX
Runtime then fails, as it does for any index that is too large. Others stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant, add_node

# Operator -> position of its indices.
INDICES = {"Gather": 1, "GatherElements": 1, "ScatterElements": 1, "ScatterND": 1}
_UNSIGNED = {
    *(ir.DataType.BOOL, ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32),
    ir.DataType.UINT64,
}
_NEVER_NEGATIVE = {"Abs", "ArgMax", "ArgMin", "NonZero", "Relu", "Shape", "Size", "TopK"}
_MOVING = (
    *("Cast", "CumSum", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"),
    *("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze"),
    *("Tile", "Transpose", "Trilu", "Unsqueeze"),
)
_Needed = tuple[Iterable[int], Callable[[Iterable[bool]], bool]]
# Operator -> of that many operands those that must not be negative, all of them or any.
_RULES: dict[str, Callable[[int], _Needed]] = {
    **dict.fromkeys(_MOVING, lambda _: ((0,), all)),
    **dict.fromkeys(("Add", "Concat", "Div", "Min", "Mul"), lambda count: (range(count), all)),
    "Max": lambda count: (range(count), any),
    "BitwiseAnd": lambda count: (range(count), any),
    "Clip": lambda count: (range(1, count), all),
    "Where": lambda _: ((1, 2), all),
    "Range": lambda _: ((0, 2), all),
    "Mod": lambda _: ((1,), all),
}
_DEPTH = 16


def refuse_negative_indices(
    model: ir.Model, refusing: Collection[str], smallest: Callable[[str], float]
) -> bool:
    """Clear the sign bit of indices that may be negative.

    Args:
        model: Changed in place.
        refusing: Names of the graph nodes whose operators take no negative indices.
        smallest: Name of an external weight -> its smallest element.

    Returns:
        Whether anything was changed.
    """
    changed = False
    made: dict[tuple[ir.Value, ir.Graph], ir.Value] = {}
    for node in list(model.graph.all_nodes()):
        position = INDICES.get(node.op_type)
        if position is None or node.domain or node.metadata_props.get("torch_node") not in refusing:
            continue
        indices = node.inputs[position]
        if indices is not None and not _never_negative(indices, smallest, _DEPTH):
            node.replace_input_with(position, _cleared(node, indices, made))
            changed = True
    return changed


def _cleared(
    node: ir.Node, indices: ir.Value, made: dict[tuple[ir.Value, ir.Graph], ir.Value]
) -> ir.Value:
    """Return the indices without their sign bits; nodes of one graph share them."""
    graph, dtype = node.graph, indices.dtype
    assert isinstance(graph, ir.Graph)
    assert dtype is not None
    if (indices, graph) not in made:
        largest = np.array(2 ** (dtype.bitwidth - 1) - 1, dtype.numpy())
        bits = add_constant(node, ir.tensor(largest))
        cleared = add_node(node, "BitwiseAnd", [indices, bits], dtype=dtype)
        cleared.shape = indices.shape
        made[indices, graph] = cleared
    return made[indices, graph]


def _never_negative(value: ir.Value | None, smallest: Callable[[str], float], depth: int) -> bool:
    """Return whether no element can be negative, by what computes the value."""
    if value is None or depth == 0:
        return False
    if value.dtype in _UNSIGNED:
        return True
    if value.const_value is not None:
        return _minimum(value, smallest) >= 0
    node = value.producer()
    if node is None or node.domain:
        return False
    kind, inputs = node.op_type, node.inputs
    if kind in _NEVER_NEGATIVE or (kind == "Mod" and node.attributes.get_int("fmod", False)):
        return kind != "Mod" and (kind != "TopK" or value is node.outputs[1])
    rule = _RULES.get(kind)
    needed, enough = rule(len(inputs)) if rule else ((), all)

    def judge(index: int) -> bool:
        return _never_negative(inputs[index], smallest, depth - 1)

    return bool(needed) and enough(judge(index) for index in needed if index < len(inputs))


def _minimum(value: ir.Value, smallest: Callable[[str], float]) -> float:
    if isinstance(value.const_value, ir.ExternalTensor):
        return smallest(value.name or "")
    assert value.const_value is not None
    array = value.const_value.numpy()
    return float(array.min()) if array.size else 0.0
