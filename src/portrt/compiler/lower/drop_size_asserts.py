"""Remove asserts that hold by construction about sizes that the data decides.

torch.export adds to each such size that it is not negative, and at most the number of elements.
They would be read off the engine's tensors, only to be compared. What a model checks itself stays.
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
    """Erase them from the program's graph, with what computed them alone."""
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


def _largest(most: Any, program: ExportedProgram) -> Any:
    if type(most) is int:
        return most
    _, largest = symbols.range_of(most, program.range_constraints)
    return _ANY if largest is None else largest


# torch's bound of a size that has none.
_ANY = 2**63 - 2
