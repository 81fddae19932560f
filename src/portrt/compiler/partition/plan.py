"""Make a Plan of a cut graph: blocks as self-contained programs, with the weights that they use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.partition.block import block_from_submodule
from portrt.compiler.plan import Block, FallbackNode, Plan
from portrt.graphs import control_flow
from portrt.graphs.symbols import ProfileRanges


def plan_of(
    program: ExportedProgram,
    weights: Mapping[str, tuple[str, torch.Tensor]],
    left_out: Sequence[FallbackNode],
    profile_ranges: ProfileRanges,
) -> Plan:
    graph_module = program.graph_module
    # A weight that PyTorch uses too stays a parameter and is passed as an input: it is stored once.
    in_blocks_only = {
        node.name
        for node in control_flow.placeholders(graph_module)
        if node.name in weights and node.users and _is_for_blocks(graph_module, node)
    }
    tensors: dict[str, torch.Tensor] = {}
    canonical: dict[Any, str] = {}
    names: dict[str, str] = {}
    for name in sorted(in_blocks_only):
        target, tensor = weights[name]
        names[name] = canonical.setdefault(_identity(tensor), target)
        tensors.setdefault(names[name], tensor)
    blocks = list(_blocks(program, graph_module, names, profile_ranges))
    control_flow.drop_unused_operands(graph_module)
    used = {name for block in blocks for name in block.weights}
    return Plan(
        program=program,
        graph_module=graph_module,
        blocks=tuple(blocks),
        tensors={name: tensor for name, tensor in tensors.items() if name in used},
        left_out=tuple(left_out),
    )


def _is_for_blocks(module: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    """Return whether only blocks use a node, also in the graphs that take it as an operand."""
    for user in node.users:
        if user.op == "call_module":
            continue
        graphs = control_flow.graphs(module, user)
        own = [
            [inner for inner, outer in control_flow.bound_operands(user, graph) if outer is node]
            for graph in graphs
        ]
        uses = len(own[0]) if own else 0
        if uses == 0 or uses != sum(item is node for item in control_flow.operands(user)):
            return False  # it is a state, a scanned tensor, or a predicate
        if not all(
            _is_for_blocks(graph, inner)
            for graph, found in zip(graphs, own, strict=True)
            for inner in found
        ):
            return False
    return True


def _blocks(
    program: ExportedProgram,
    module: torch.fx.GraphModule,
    names: Mapping[str, str],
    profile_ranges: ProfileRanges,
) -> Iterator[Block]:
    """Yield the blocks of a graph and of the graphs inside it.

    Args:
        program: The program that the graph is in.
        module: The graph.
        names: Placeholder name -> name of the weight, for weights that only blocks use.
        profile_ranges: Symbol -> (min, opt, max) in each profile.
    """
    known = control_flow.placeholders(module)
    for node in list(module.graph.nodes):
        if node.op == "call_module":
            yield block_from_submodule(program, module, node, names, known, profile_ranges)
        for inner in control_flow.graphs(module, node):
            handed = {
                own.name: names[outer.name]
                for own, outer in control_flow.bound_operands(node, inner)
                if outer.name in names
            }
            yield from _blocks(program, inner, handed, profile_ranges)


def _identity(tensor: torch.Tensor) -> Any:
    """Return a key that is equal for two names of one weight (tied weights)."""
    if tensor.numel() == 0:
        return id(tensor)
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.dtype,
        tuple(tensor.shape),
        tuple(tensor.stride()),
    )
