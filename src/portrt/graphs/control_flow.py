"""Control-flow operators: their operands, and the graphs (branches and bodies) that they call.

A control-flow operator passes the same additional operands to each of its graphs, after its states
and scanned tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._higher_order_ops.map import map_impl

from portrt.graphs import nested

# Operator -> positions of the arguments with its operands, in the order in which its graphs take
# them. The last of these arguments has the additional operands, to which others may be appended.
OPERANDS: Mapping[Any, tuple[int, ...]] = {
    torch.ops.higher_order.cond: (3,),
    torch.ops.higher_order.while_loop: (2, 3),
    torch.ops.higher_order.scan: (1, 2, 3),
    map_impl: (1, 2),
}


@dataclass(frozen=True)
class SubgraphSite:
    """A graph of a program, and the calls that lead to it.

    Attributes:
        module: The graph.
        calls: The calls around the graph, outermost first, each with the graph that it is in.
    """

    module: torch.fx.GraphModule
    calls: tuple[tuple[torch.fx.GraphModule, torch.fx.Node], ...] = ()


def subgraph_sites(
    module: torch.fx.GraphModule,
    calls: tuple[tuple[torch.fx.GraphModule, torch.fx.Node], ...] = (),
) -> Iterator[SubgraphSite]:
    """Yield the site of a graph, and the sites of the graphs inside it."""
    yield SubgraphSite(module, calls)
    for node in list(module.graph.nodes):
        for inner in graphs(module, node):
            yield from subgraph_sites(inner, (*calls, (module, node)))


def graphs(module: torch.fx.GraphModule, call: torch.fx.Node) -> list[torch.fx.GraphModule]:
    """Return the graphs that a control-flow operator calls; empty for other nodes."""
    return list(nested.graphs_of_call(module, call).values()) if call.target in OPERANDS else []


def operands(call: torch.fx.Node) -> list[Any]:
    """Return the operands of a call in the order of the placeholders of its graphs."""
    return [item for position in OPERANDS[call.target] for item in _items(call.args[position])]


def placeholders(module: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Return the placeholders of a graph, in order."""
    return [node for node in module.graph.nodes if node.op == "placeholder"]


def bound_operands(
    call: torch.fx.Node, graph: torch.fx.GraphModule
) -> Iterator[tuple[torch.fx.Node, torch.fx.Node]]:
    """Yield placeholders of a graph with the operands that they are always equal to.

    States and scanned tensors are left out: they differ between iterations.
    """
    extra = _items(call.args[OPERANDS[call.target][-1]])
    own = placeholders(graph)[len(operands(call)) - len(extra) :]
    for inner, outer in zip(own, extra, strict=True):
        if isinstance(outer, torch.fx.Node):
            yield inner, outer


def add_operand(site: SubgraphSite, node: torch.fx.Node) -> torch.fx.Node:
    """Return the placeholder at a site for a node of the outermost graph; operands are added."""
    for depth, (module, call) in enumerate(site.calls):
        inner = graphs(module, call)
        if not any(item is node for item in operands(call)):
            _add_operand(call, inner, node)
        index = next(i for i, item in enumerate(operands(call)) if item is node)
        target = site.calls[depth + 1][0] if depth + 1 < len(site.calls) else site.module
        node = placeholders(target)[index]
    return node


def _add_operand(
    call: torch.fx.Node, inner: list[torch.fx.GraphModule], node: torch.fx.Node
) -> None:
    _set_extra(call, [*_items(call.args[OPERANDS[call.target][-1]]), node])
    for module in inner:
        known = placeholders(module)
        before = known[-1].next if known else next(iter(module.graph.nodes))
        with module.graph.inserting_before(before):
            own = module.graph.placeholder(node.name)
        own.meta["val"] = node.meta["val"]


def drop_unused_operands(module: torch.fx.GraphModule) -> None:
    """Remove operands that no graph of a call uses, in the innermost graphs first."""
    for call in list(module.graph.nodes):
        inner = graphs(module, call)
        for graph in inner:
            drop_unused_operands(graph)
        if inner:
            _drop_unused(call, inner)


def _drop_unused(call: torch.fx.Node, inner: list[torch.fx.GraphModule]) -> None:
    last = OPERANDS[call.target][-1]
    extra = _items(call.args[last])
    first = len(operands(call)) - len(extra)
    kept: list[Any] = []
    for operand in extra:
        own = [placeholders(graph)[first + len(kept)] for graph in inner]
        if any(node.users for node in own):
            kept.append(operand)
            continue
        for graph, node in zip(inner, own, strict=True):
            graph.graph.erase_node(node)
    _set_extra(call, kept)
    for graph in inner:
        graph.recompile()


def _set_extra(call: torch.fx.Node, values: list[Any]) -> None:
    """Set the additional operands of a call."""
    position = OPERANDS[call.target][-1]
    args: list[Any] = list(call.args)
    args[position] = tuple(values) if isinstance(args[position], tuple) else values
    call.args = tuple(args)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
