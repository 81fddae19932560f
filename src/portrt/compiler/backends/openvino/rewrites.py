"""Edits of the ONNX model for OpenVINO's CPU plugin: NaN, comparisons and indices as in PyTorch.

Its kernels of Relu, Exp, Max, Min, Clip, MaxPool and casts to bool lose NaN, its Greater and
GreaterOrEqual find it greater than every number, its Clip makes infinity finite, and a softmax has
NaN in fewer elements of a row. Less, LessOrEqual, Equal, Where and IsNaN are right. Seen with
2026.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant, add_node, replace_node

_FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT}
_SWAPPED = {"Greater": "Less", "GreaterOrEqual": "LessOrEqual"}
FAULT = "portrt_fault"


def nan_as_in_pytorch(model: ir.Model, *, fast: bool) -> bool:
    """Rewrite operators that lose NaN.

    Args:
        model: Changed in place.
        fast: Only those whose form costs nothing.

    Returns:
        Whether anything was changed.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        x = node.inputs[0] if node.inputs else None
        rule = _RULES.get(node.op_type)
        if node.domain or x is None or x.dtype not in _FLOATS or rule is None:
            continue
        if fast and node.op_type not in _FREE:
            continue
        made = rule(node, x)
        if made is not None:
            made.type = node.outputs[0].type
            replace_node(node, made)
            changed = True
    return changed


def _swapped(node: ir.Node, x: ir.Value) -> ir.Value:
    return add_node(node, _SWAPPED[node.op_type], [node.inputs[1], x])


def _number(node: ir.Node, value: float, dtype: ir.DataType | None) -> ir.Value:
    assert dtype is not None
    return add_constant(node, ir.tensor(np.array(value, dtype.numpy())))


def _relu(node: ir.Node, x: ir.Value) -> ir.Value:
    zero = _number(node, 0.0, x.dtype)
    return add_node(node, "Where", [add_node(node, "Less", [x, zero]), zero, x])


def _kept(node: ir.Node, x: ir.Value) -> ir.Value:
    """Return NaN where the operand is NaN."""
    made = add_node(node, node.op_type, node.inputs, list(node.attributes.values()))
    return add_node(node, "Where", [add_node(node, "IsNaN", [x]), x, made])


def _clip(node: ir.Node, x: ir.Value) -> ir.Value:
    """Clip without one end, which OpenVINO takes for the largest finite number."""
    made = x
    for kind, end in zip(("Max", "Min"), node.inputs[1:], strict=False):
        if end is not None:
            made = add_node(node, kind, [made, end])
            made.type = x.type
    return add_node(node, "Where", [add_node(node, "IsNaN", [x]), x, made])


def _extreme(node: ir.Node, x: ir.Value) -> ir.Value:
    found = x
    for other in node.inputs[1:]:
        assert other is not None
        made = add_node(node, node.op_type, [found, other])
        for operand in (found, other):
            if not _is_number(operand):
                is_nan = add_node(node, "IsNaN", [operand])
                made = add_node(node, "Where", [is_nan, operand, made])
        made.type = x.type
        found = made
    return found


def _is_number(value: ir.Value) -> bool:
    """Return whether a value is a constant without NaN."""
    constant = value.const_value
    if constant is None:
        producer = value.producer()
        held = None if producer is None else producer.attributes.get("value")
        if producer is None or producer.op_type != "Constant" or held is None:
            return False
        constant = held.as_tensor()
    if isinstance(constant, ir.ExternalTensor):
        return False
    return not bool(np.isnan(constant.numpy().astype(np.float32)).any())


def _cast(node: ir.Node, x: ir.Value) -> ir.Value | None:
    if node.attributes.get_int("to", 0) != ir.DataType.BOOL:
        return None
    is_zero = add_node(node, "Equal", [x, _number(node, 0.0, x.dtype)])
    return add_node(node, "Not", [is_zero])


def _softmax(node: ir.Node, x: ir.Value) -> ir.Value:
    """Return NaN in the whole row where an element is NaN."""
    made = add_node(node, node.op_type, [x], list(node.attributes.values()))
    zero = _number(node, 0.0, x.dtype)
    lost = add_node(node, "Where", [add_node(node, "IsNaN", [made]), made, zero])
    axis = add_constant(node, ir.tensor(np.array([node.attributes.get_int("axis", -1)])))
    return add_node(node, "Add", [made, add_node(node, "ReduceSum", [lost, axis])])


_RULES: dict[str, Callable[[ir.Node, ir.Value], ir.Value | None]] = {
    "Cast": _cast,
    "Clip": _clip,
    "Exp": _kept,
    "Greater": _swapped,
    "GreaterOrEqual": _swapped,
    "LogSoftmax": _softmax,
    "Max": _extreme,
    "Min": _extreme,
    "Relu": _relu,
    "Softmax": _softmax,
}
_FREE = {"Cast", "Clip", "Greater", "GreaterOrEqual"}
KINDS = tuple(_RULES)


def with_fault_of_indices(model: ir.Model, refusing: Collection[str]) -> bool:
    """Add an output that is not 0 where an index of a Gather is out of range.

    OpenVINO gives zeros for it, PyTorch an error: a session that reads another number than 0 leaves
    the call to PyTorch.

    Args:
        model: Changed in place.
        refusing: Names of the graph nodes whose operators take no negative indices.

    Returns:
        Whether anything was changed.
    """
    total: ir.Value | None = None
    last: ir.Node | None = None
    done: set[tuple[ir.Value, object]] = set()
    for node in list(model.graph):
        if node.op_type != "Gather" or node.domain:
            continue
        x, indices = node.inputs[:2]
        assert x is not None
        assert indices is not None
        if indices.const_value is not None or _is_constant(indices):
            continue
        negative = node.metadata_props.get("torch_node") not in refusing
        axis = node.attributes.get_int("axis", 0)
        size = None if x.shape is None else x.shape[axis]
        if (indices, (size, negative)) in done:
            continue
        done.add((indices, (size, negative)))
        found = _outside(node, x, indices, axis, negative=negative)
        total = found if total is None else add_node(node, "Add", [total, found])
        last = node
    if total is None or last is None:
        return False
    total.name, total.dtype, total.shape = FAULT, ir.DataType.FLOAT, ir.Shape([])
    model.graph.outputs.append(total)
    return True


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant"


def _outside(
    node: ir.Node, x: ir.Value, indices: ir.Value, axis: int, *, negative: bool
) -> ir.Value:
    """Return how many indices are out of range, as a float."""
    assert indices.dtype is not None
    shape = add_node(node, "Shape", [x], [ir.AttrInt64("start", axis)])
    place = add_constant(node, ir.tensor(np.array(0)))
    size = add_node(node, "Gather", [shape, place])
    size = add_node(node, "Cast", [size], [ir.AttrInt64("to", indices.dtype)])
    zero = add_constant(node, ir.tensor(np.array(0, indices.dtype.numpy())))
    low = add_node(node, "Neg", [size]) if negative else zero
    below = add_node(node, "Less", [indices, low])
    above = add_node(node, "LessOrEqual", [size, indices])
    flags = add_node(node, "Or", [below, above])
    numbers = add_node(node, "Cast", [flags], [ir.AttrInt64("to", ir.DataType.FLOAT)])
    return add_node(node, "ReduceSum", [numbers], [ir.AttrInt64("keepdims", 0)])
