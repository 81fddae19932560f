"""Check of the branches of a block that its sample inputs do not take.

The check of the engine on the sample does not cover them. So the block is rebuilt with inverted
conditions, compared with PyTorch, and discarded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from portrt import torch_internals
from portrt.compiler.plan import Block
from portrt.graphs import nested
from portrt.torch_internals.programs import positional_call_graph

_COND = torch.ops.higher_order.cond
_WHILE_LOOP = torch.ops.higher_order.while_loop

# Maximum nesting depth; 2 ** depth - 1 blocks cover all paths.
_MAX_DEPTH = 3


def with_other_branches(block: Block) -> Iterator[Block]:
    """Yield the block with inverted conditions: one for each path other than that of the sample.

    Conditions nested deeper than three, and those inside a `while_loop`, which might never end, are
    not inverted.
    """
    old = block.program
    depth = min(_depth(old.graph_module), _MAX_DEPTH)
    for inverted in range(1, 2**depth):
        module = nested.copied(old.graph_module)
        _invert(module, inverted)
        call_graph = positional_call_graph(old.graph_signature)
        program = torch_internals.program_from_graph(
            old, module, old.graph_signature, {}, {}, call_graph
        )
        yield dataclasses.replace(block, program=program)


def _depth(module: torch.fx.GraphModule) -> int:
    """Return the nesting depth of conditions."""
    found = 0
    for node in module.graph.nodes:
        if node.target is not _WHILE_LOOP:
            inner = nested.graphs_of_call(module, node).values()
            deepest = max(map(_depth, inner), default=0)
            found = max(found, deepest + (node.target is _COND))
    return found


def _invert(module: torch.fx.GraphModule, inverted: int) -> None:
    """Negate a graph's predicates if the lowest bit is set; deeper levels use the next bits."""
    for node in list(module.graph.nodes):
        if node.target is _WHILE_LOOP:
            continue
        is_cond = node.target is _COND
        for inner in nested.graphs_of_call(module, node).values():
            _invert(inner, inverted >> is_cond)
        predicate = node.args[0] if is_cond else None
        if inverted & 1 and isinstance(predicate, torch.fx.Node):
            with module.graph.inserting_before(node):
                negated = module.graph.call_function(
                    torch.ops.aten.logical_not.default, (predicate,)
                )
            negated.meta["val"] = predicate.meta["val"]
            node.args = (negated, *node.args[1:])
    module.recompile()
