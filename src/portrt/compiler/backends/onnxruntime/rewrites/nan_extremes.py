"""Return NaN for extremes of tensors with NaN as PyTorch does: ONNX Runtime loses most of them.

Its kernels of MaxPool, ReduceMax, ReduceMin, ArgMax, ArgMin, and of ScatterElements with a maximum
or minimum compare without regard to NaN; those of Max, Min, Clip and TopK are right. A sum, which
is NaN if an element is, shows at each call whether there may be one: that is one more pass over the
tensor. Only then the extremes are computed together with those of a mask of NaN. Positions along
the last axis are found by TopK, which takes as long. MaxPool has the lowest number for a window of
-infinities, which a sum shows, too. Seen with 1.32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from portrt.compiler.convert.onnx_nodes import add_constant, add_node, replace_node

_FLOATS = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
KINDS = ("MaxPool", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "ScatterElements")


class _Branch:
    """The nodes of a branch."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[ir.Node] = []

    def add(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr] = (),
        outputs: int = 1,
    ) -> Sequence[ir.Value]:
        node = ir.Node("", kind, inputs, attributes, num_outputs=outputs)
        for index, value in enumerate(node.outputs):
            value.name = f"{self._name}_{len(self._nodes)}_{index}"
        self._nodes.append(node)
        return node.outputs

    def one(
        self, kind: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = ()
    ) -> ir.Value:
        return self.add(kind, inputs, attributes)[0]

    def mask(self, x: ir.Value) -> ir.Value:
        """Return 1.0 where an element is NaN, and 0.0 elsewhere."""
        is_nan = self.one("IsNaN", [x])
        return self.one("Cast", [is_nan], [ir.AttrInt64("to", ir.DataType.FLOAT)])

    def levels(self, x: ir.Value) -> ir.Value:
        """Return 2.0 where an element is NaN, 0.0 where it is -infinity, and 1.0 elsewhere."""
        assert x.dtype is not None
        is_more = self.one("Greater", [x, self.constant(-np.inf, x.dtype)])
        to_float = [ir.AttrInt64("to", ir.DataType.FLOAT)]
        mask = self.mask(x)
        twice = self.one("Add", [mask, mask])
        return self.one("Add", [self.one("Cast", [is_more], to_float), twice])

    def constant(self, value: float, dtype: ir.DataType) -> ir.Value:
        made = ir.tensor(np.array(value, dtype.numpy()))
        return self.one("Constant", [], [ir.AttrTensor("value", made)])

    def marked(self, flags: ir.Value, found: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return NaN where a flag is 1.0, and what was found elsewhere."""
        return self.one("Where", [self.true(flags), self.constant(np.nan, dtype), found])

    def true(self, flags: ir.Value) -> ir.Value:
        return self.one("Cast", [flags], [ir.AttrInt64("to", ir.DataType.BOOL)])

    def graph(self, outputs: Sequence[ir.Value]) -> ir.Graph:
        return ir.Graph([], outputs, nodes=self._nodes, name=self._name)


def nan_in_extremes(model: ir.Model, *, fast: bool = False) -> bool:
    """Rewrite extremes of floats.

    Args:
        model: Changed in place.
        fast: Only those whose form takes as long.

    Returns:
        Whether anything was changed.
    """
    found = [
        node
        for node in model.graph.all_nodes()
        if _loses_nan(node) and (not fast or _is_last_position(node))
    ]
    checks: dict[tuple[ir.Value, bool, object], ir.Value] = {}
    for node in found:
        if _is_last_position(node):
            _find_by_top_k(node)
        else:
            _rewrite(node, checks)
    return bool(found)


def _loses_nan(node: ir.Node) -> bool:
    x = node.inputs[0] if node.inputs else None
    if node.domain or node.op_type not in KINDS or x is None or x.dtype not in _FLOATS:
        return False
    if node.op_type == "ScatterElements":
        return node.attributes.get_string("reduction", "none") in ("max", "min")
    return x.const_value is None


def _is_last_position(node: ir.Node) -> bool:
    x = node.inputs[0]
    assert x is not None
    if node.op_type not in ("ArgMax", "ArgMin") or x.shape is None:
        return False
    return node.attributes.get_int("axis", 0) in (-1, len(x.shape) - 1)


def _find_by_top_k(node: ir.Node) -> None:
    """Write ArgMax and ArgMin as TopK, which takes NaN for the largest and the first of equals."""
    x = node.inputs[0]
    assert x is not None
    if node.op_type == "ArgMin":
        x = add_node(node, "Neg", [x])
    one = add_constant(node, ir.tensor(np.array([1])))
    top = ir.Node("", "TopK", [x, one], [ir.AttrInt64("axis", -1)], num_outputs=2)
    name = node.outputs[0].name
    top.outputs[0].name, found = f"{name}_top_value", top.outputs[1]
    found.name = f"{name}_top"
    top.metadata_props.update(node.metadata_props)
    assert node.graph is not None
    node.graph.insert_before(node, top)
    if not node.attributes.get_int("keepdims", 1):
        found = add_node(node, "Squeeze", [found, add_constant(node, ir.tensor(np.array([-1])))])
    replace_node(node, found)


def _rewrite(node: ir.Node, checks: dict[tuple[ir.Value, bool, object], ir.Value]) -> None:
    assert node.graph is not None
    attributes = list(node.attributes.values())
    count = len(node.outputs)
    usual, other = (_Branch(f"{node.outputs[0].name}_{kind}") for kind in ("usual", "nan"))
    plain = usual.graph(usual.add(node.op_type, node.inputs, attributes, count))
    exact = other.graph(_FORMS[node.op_type](other, node, attributes))
    tensors = [node.inputs[0]]
    if node.op_type == "ScatterElements":
        tensors.append(node.inputs[2])
    check = None
    for x in tensors:
        assert x is not None
        is_pool = node.op_type == "MaxPool"
        if (x, is_pool, node.graph) not in checks:
            terms = x
            if is_pool and x.dtype == ir.DataType.FLOAT16:  # whose sum would often be infinite
                terms = add_node(node, "Cast", [x], [ir.AttrInt64("to", ir.DataType.FLOAT)])
            total = add_node(node, "ReduceSum", [terms], [ir.AttrInt64("keepdims", 0)])
            if is_pool:  # NaN for infinities, too
                total = add_node(node, "Sub", [total, total])
            checks[x, is_pool, node.graph] = add_node(node, "IsNaN", [total])
        own = checks[x, is_pool, node.graph]
        check = own if check is None else add_node(node, "Or", [check, own])
    branches = [ir.AttrGraph("then_branch", exact), ir.AttrGraph("else_branch", plain)]
    choice = ir.Node("", "If", [check], branches, num_outputs=count, name=node.name)
    choice.metadata_props.update(node.metadata_props)
    node.graph.insert_before(node, choice)
    for old, new in zip(list(node.outputs), choice.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.name = None
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def _reduced(branch: _Branch, node: ir.Node, attributes: Sequence[ir.Attr]) -> list[ir.Value]:
    x, *axes = node.inputs
    assert x is not None
    assert x.dtype is not None
    found = branch.one(node.op_type, node.inputs, attributes)
    flags = branch.one("ReduceMax", [branch.mask(x), *axes], attributes)
    return [branch.marked(flags, found, x.dtype)]


def _position(branch: _Branch, node: ir.Node, attributes: Sequence[ir.Attr]) -> list[ir.Value]:
    """Return the position of the first NaN."""
    x = node.inputs[0]
    assert x is not None
    mask = branch.mask(x)
    found = branch.one(node.op_type, [x], attributes)
    first = branch.one("ArgMax", [mask], attributes)
    axis = ir.AttrTensor("value", ir.tensor(np.array([node.attributes.get_int("axis", 0)])))
    keepdims = ir.AttrInt64("keepdims", node.attributes.get_int("keepdims", 1))
    flags = branch.one("ReduceMax", [mask, branch.one("Constant", [], [axis])], [keepdims])
    return [branch.one("Where", [branch.true(flags), first, found])]


def _pooled(branch: _Branch, node: ir.Node, attributes: Sequence[ir.Attr]) -> list[ir.Value]:
    x = node.inputs[0]
    assert x is not None
    assert x.dtype is not None
    count = len(node.outputs)
    found, *positions = branch.add("MaxPool", [x], attributes, count)
    level, *first = branch.add("MaxPool", [branch.levels(x)], attributes, count)
    one = branch.constant(1.0, ir.DataType.FLOAT)
    lowest = branch.constant(-np.inf, x.dtype)
    nan = branch.constant(np.nan, x.dtype)
    usual = branch.one("Equal", [level, one])
    other = branch.one("Where", [branch.one("Less", [level, one]), lowest, nan])
    made = [branch.one("Where", [usual, found, other])]
    if positions:
        made.append(branch.one("Where", [usual, positions[0], first[0]]))
    return made


def _scattered(branch: _Branch, node: ir.Node, attributes: Sequence[ir.Attr]) -> list[ir.Value]:
    x, index, updates = node.inputs
    assert x is not None
    assert updates is not None
    assert x.dtype is not None
    found = branch.one("ScatterElements", node.inputs, attributes)
    largest = [item for item in attributes if item.name != "reduction"]
    largest.append(ir.AttrString("reduction", "max"))
    flags = branch.one("ScatterElements", [branch.mask(x), index, branch.mask(updates)], largest)
    return [branch.marked(flags, found, x.dtype)]


_FORMS: dict[str, Callable[[_Branch, ir.Node, Sequence[ir.Attr]], list[ir.Value]]] = {
    "MaxPool": _pooled,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "ArgMax": _position,
    "ArgMin": _position,
    "ScatterElements": _scattered,
}
