"""Nested graphs: the branches and bodies that control-flow operators call.

torch.export keeps them as submodules that a `get_attr` node reads and an operator such as
`torch.cond` takes. Everything that they use is an operand of the call, weights included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from portrt import torch_internals


def graph_modules(root: torch.fx.GraphModule) -> Iterator[torch.fx.GraphModule]:
    """Yield `root` and the graphs inside it, outermost first."""
    for module in root.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield module


def all_nodes(root: torch.fx.GraphModule) -> Iterator[torch.fx.Node]:
    """Yield the nodes of `root` and of the graphs inside it."""
    for module in graph_modules(root):
        yield from module.graph.nodes


def graphs_of_call(
    module: torch.fx.GraphModule, node: torch.fx.Node
) -> dict[torch.fx.Node, torch.fx.GraphModule]:
    """Return the graphs that a node of `module` calls, by the `get_attr` nodes that read them."""
    found = {}
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            held: Any = module
            for part in str(source.target).split("."):
                held = getattr(held, part, None)
            if isinstance(held, torch.fx.GraphModule):
                found[source] = held
    return found


def is_operator(node: torch.fx.Node) -> bool:
    """Return whether a node calls an operator, unlike arithmetic on sizes or `getitem`."""
    return isinstance(node.target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator))


def copied(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Copy a graph and the graphs inside it, with the same names; fake values are shared."""
    graph = torch.fx.Graph()
    env: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.output(graph.graph_copy(module.graph, env))
    graph.output_node().meta.update(module.graph.output_node().meta)
    for node, copy in env.items():
        copy.name = node.name
    torch_internals.name_placeholders(graph, torch_internals.placeholder_names(module.graph))
    root = root_with(copies_of_graphs(module))
    for node in graph.find_nodes(op="get_attr"):
        held = getattr(module, str(node.target), None)
        if isinstance(held, torch.Tensor):
            root.register_buffer(str(node.target), held)
    return torch.fx.GraphModule(root, graph)


def copies_of_graphs(module: torch.fx.GraphModule) -> dict[str, torch.fx.GraphModule]:
    """Copy the graphs that the nodes of `module` call; return them by their names in it."""
    return {
        str(reader.target): copied(inner)
        for node in module.graph.nodes
        for reader, inner in graphs_of_call(module, node).items()
    }


def root_with(graphs: Mapping[str, torch.fx.GraphModule]) -> torch.nn.Module:
    """Make a module that holds graphs, as the root of the graph whose nodes read them."""
    root = torch.nn.Module()
    for name, module in graphs.items():
        root.add_module(name, module)
    return root
