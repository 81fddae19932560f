"""Remove asserts on data-dependent sizes that hold by construction.

torch.export asserts that each such size is not negative and at most the number of elements.
Evaluating that would read sizes of the engine's outputs. Checks that the model makes itself stay.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.compiler.sizes import data_sizes
from portrt.graphs import symbols

aten = torch.ops.aten


def drop_size_asserts(program: ExportedProgram) -> None:
    """Erase these asserts from the program's graph in place, with the nodes that only they use."""
    graph = program.graph
    known = data_sizes.known_symbols(graph)
    if not known:
        return
    for node in list(graph.nodes):
        if node.target is aten._assert_scalar.default and _holds(node.args[0], known, program):
            condition = node.args[0]
            graph.erase_node(node)
            if not condition.users:
                graph.erase_node(condition)
    for node in reversed(list(graph.nodes)):
        if node.target is aten.sym_size.int and not node.users:
            graph.erase_node(node)
    program.graph_module.recompile()


def _holds(condition: Any, known: dict[Any, Any], program: ExportedProgram) -> bool:
    if not isinstance(condition, torch.fx.Node) or len(condition.args) != 2:
        return False
    size, bound = condition.args
    value = size.meta.get("val") if isinstance(size, torch.fx.Node) else None
    if not isinstance(value, torch.SymInt) or type(bound) is not int:
        return False
    symbol = torch_internals.expression_of(value)
    if symbol not in known:
        return False
    if condition.target is operator.ge:
        return bound <= 0
    return condition.target is operator.le and bound >= _largest(known[symbol], program)


def _largest(bound: Any, program: ExportedProgram) -> Any:
    if type(bound) is int:
        return bound
    _, largest = symbols.range_of(bound, program.range_constraints)
    return _UNBOUNDED if largest is None else largest


# The upper bound that torch writes for an unbounded size.
_UNBOUNDED = 2**63 - 2
