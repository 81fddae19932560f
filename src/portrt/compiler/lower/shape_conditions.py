"""Compute conditions on sizes as tensors, so that engines can hold them with their branches.

The predicate of `torch.cond(x.shape[0] > 4, ...)` is a symbolic bool, which ONNX has no form for.
"""

from __future__ import annotations

from typing import Any

import sympy
import torch

from portrt import torch_internals
from portrt.graphs import symbols

aten = torch.ops.aten

_COMPARISONS = {
    sympy.Eq: aten.eq.Tensor,
    sympy.Ne: aten.ne.Tensor,
    sympy.StrictGreaterThan: aten.gt.Tensor,
    sympy.GreaterThan: aten.ge.Tensor,
    sympy.StrictLessThan: aten.lt.Tensor,
    sympy.LessThan: aten.le.Tensor,
}
_CONNECTIVES = {sympy.And: aten.logical_and.default, sympy.Or: aten.logical_or.default}


def shape_conditions(graph_module: torch.fx.GraphModule) -> None:
    """Rewrite the predicate of every `cond` that compares integer expressions of input sizes."""
    graph = graph_module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node in graph.find_nodes(op="call_function", target=torch.ops.higher_order.cond):
        predicate = node.args[0]
        value = predicate.meta.get("val") if isinstance(predicate, torch.fx.Node) else None
        if isinstance(value, torch.SymBool):
            condition = _Condition(graph, placeholders)
            expression = torch_internals.expression_of(value)
            if condition.is_known(expression):
                with graph.inserting_before(node):
                    node.args = (condition.emit(expression), *node.args[1:])
    for node in reversed(graph.nodes):
        if node.op == "call_function" and torch_internals.is_symbolic_call(node) and not node.users:
            graph.erase_node(node)
    graph.lint()
    graph_module.recompile()


class _Condition:
    """Nodes that compute a sympy condition from the sizes of placeholders."""

    def __init__(self, graph: torch.fx.Graph, placeholders: list[torch.fx.Node]) -> None:
        self._graph = graph
        self._placeholders = placeholders
        self._known = symbols.dimensions_of(placeholders)
        self._mode = torch_internals.fake_mode_of(graph)

    def is_known(self, expression: Any) -> bool:
        """Return whether it consists of comparisons of such sizes, "and", "or" and "not" only."""
        if type(expression) in _COMPARISONS:
            return all(
                side.is_integer and symbols.tree_of_expression(side, self._known) is not None
                for side in expression.args
            )
        if type(expression) in _CONNECTIVES or isinstance(expression, sympy.Not):
            return all(self.is_known(part) for part in expression.args)
        return False

    def emit(self, expression: Any) -> torch.fx.Node:
        """Return a node that computes a 0-d bool tensor, added at the graph's insertion point."""
        if type(expression) in _COMPARISONS:
            sides = [self._size(side) for side in expression.args]
            return self._call(_COMPARISONS[type(expression)], *sides)
        parts = [self.emit(part) for part in expression.args]
        if isinstance(expression, sympy.Not):
            return self._call(aten.logical_not.default, *parts)
        result = parts[0]
        for part in parts[1:]:
            result = self._call(_CONNECTIVES[type(expression)], result, part)
        return result

    def _size(self, expression: Any) -> torch.fx.Node:
        tree = symbols.tree_of_expression(expression, self._known)
        size = symbols.emit(self._graph, tree, self._placeholders)
        device = next(iter(self._tensors())).device
        return self._call(aten.scalar_tensor.default, size, dtype=torch.int64, device=device)

    def _tensors(self) -> list[torch.Tensor]:
        values = [node.meta.get("val") for node in self._placeholders]
        return [value for value in values if isinstance(value, torch.Tensor)]

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
        node = self._graph.call_function(target, args, kwargs)
        values = [arg.meta["val"] if isinstance(arg, torch.fx.Node) else arg for arg in args]
        with self._mode:
            node.meta["val"] = target(*values, **kwargs)
        return node
