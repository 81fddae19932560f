"""Nodes put in the place of another one in an ONNX model, for one backend's sake."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


def add_node(
    before: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    attributes: Sequence[ir.Attr] = (),
) -> ir.Value:
    """A new node before another one, from the same call of the model; its output."""
    node = ir.Node("", kind, inputs, attributes)
    node.metadata_props.update(before.metadata_props)
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return node.outputs[0]


def add_constant(before: ir.Node, array: np.ndarray) -> ir.Value:
    """A constant before a node."""
    return add_node(before, "Constant", [], [ir.AttrTensor("value", ir.tensor(array))])


def replace_node(node: ir.Node, made: ir.Value) -> None:
    """Give another value the name and the users of a node's only output, and drop the node."""
    old = node.outputs[0]
    made.name, made.type, made.shape = old.name, old.type, old.shape
    old.name = None
    ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
