"""Control flow with a tensor of its own for each operand.

A loop that starts two states with one tensor of zeros, as an LSTM cell does, exports; but torch
then takes the two states for aliases of each other, and refuses to decompose the program.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from portrt import nested, torch_internals

_LOOPS = (torch.ops.higher_order.while_loop, torch.ops.higher_order.scan)


def distinct_operands(program: ExportedProgram) -> ExportedProgram:
    """The program, with copies for operands that a loop is given twice.

    `program` is not changed; it is returned where there is nothing to do.
    """
    if not any(_repeated(node) for node in nested.all_nodes(program.graph_module)):
        return program
    module = nested.copied(program.graph_module)
    for inner in nested.graph_modules(module):
        for node in inner.graph.nodes:
            for operand in _repeated(node):
                _copy_all_but_one(node, operand)
        inner.recompile()
    return torch_internals.program_from_graph(
        program, module, program.graph_signature, program.state_dict, program.constants
    )


def _repeated(node: torch.fx.Node) -> list[torch.fx.Node]:
    if node.target not in _LOOPS:
        return []
    operands = _operands(node)
    return [item for item in dict.fromkeys(operands) if operands.count(item) > 1]


def _operands(node: torch.fx.Node) -> list[torch.fx.Node]:
    found: list[torch.fx.Node] = []
    torch.fx.map_arg(node.args, found.append)
    return found


def _copy_all_but_one(node: torch.fx.Node, operand: torch.fx.Node) -> None:
    seen = 0

    def own(item: torch.fx.Node) -> torch.fx.Node:
        nonlocal seen
        seen += item is operand
        if item is not operand or seen == 1 or not isinstance(item.meta.get("val"), torch.Tensor):
            return item
        with node.graph.inserting_before(node):
            copy = node.graph.call_function(torch.ops.aten.clone.default, (item,))
        copy.meta.update(item.meta)
        return copy

    node.args = torch.fx.map_arg(node.args, own)
