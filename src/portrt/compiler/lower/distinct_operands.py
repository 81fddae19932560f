"""Give each operand of a loop a distinct tensor.

torch.export accepts a loop with the same tensor as two operands; `run_decompositions` then reports
that the two alias each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.errors import LowerError
from portrt.graphs import nested
from portrt.graphs.source_line import source_line

_WHILE_LOOP, _SCAN = torch.ops.higher_order.while_loop, torch.ops.higher_order.scan


def distinct_operands(program: ExportedProgram) -> ExportedProgram:
    """Clone the operands that a `while_loop` takes twice.

    Args:
        program: Not modified; returned as it is if no operand is repeated.

    Raises:
        LowerError: torch.export has merged two operands of a `scan` into one.
    """
    nodes = list(nested.all_nodes(program.graph_module))
    for node in nodes:
        if node.target is _SCAN:
            _refuse_merged(node)
    if not any(node.target is _WHILE_LOOP and _repeated(node) for node in nodes):
        return program
    module = nested.copied(program.graph_module)
    for inner in nested.graph_modules(module):
        for node in inner.graph.find_nodes(op="call_function", target=_WHILE_LOOP):
            for operand in _repeated(node):
                _copy_all_but_one(node, operand)
        inner.recompile()
    return torch_internals.program_from_graph(
        program, module, program.graph_signature, program.state_dict, program.constants
    )


def _refuse_merged(node: torch.fx.Node) -> None:
    """Raise if a scan starts with a tensor that it also takes as another operand.

    torch 2.13 traces scan(f, (zeros, zeros), x) with one state for both, so that the exported graph
    computes something else. It cannot be repaired here.
    """
    _, states, _, others = node.args
    operands = [*_tensors(states), *_tensors(others)]
    merged = [item for item in _tensors(states) if operands.count(item) > 1]
    if merged:
        place = source_line(node.meta.get("stack_trace"))
        raise LowerError(
            f"scan starts with {merged[0].name!r}, which is also another of its operands, and "
            f"torch.export merges the two{f': at {place}' if place else ''}",
            "a distinct tensor for each state, which the function of the scan reads from its "
            "arguments only",
            "start the states with copies, such as (h, h.clone())",
        )


def _tensors(value: Any) -> list[torch.fx.Node]:
    found: list[torch.fx.Node] = []
    torch.fx.map_arg(value, found.append)
    return [node for node in found if isinstance(node.meta.get("val"), torch.Tensor)]


def _repeated(node: torch.fx.Node) -> list[torch.fx.Node]:
    operands = _tensors(node.args)
    return [item for item in dict.fromkeys(operands) if operands.count(item) > 1]


def _copy_all_but_one(node: torch.fx.Node, operand: torch.fx.Node) -> None:
    seen = 0

    def own(item: torch.fx.Node) -> torch.fx.Node:
        nonlocal seen
        seen += item is operand
        if item is not operand or seen == 1:
            return item
        with node.graph.inserting_before(node):
            copy = node.graph.call_function(torch.ops.aten.clone.default, (item,))
        copy.meta.update(item.meta)
        return copy

    node.args = torch.fx.map_arg(node.args, own)
