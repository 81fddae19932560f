"""Lift constants of branches to operands, like every other tensor that a branch uses.

torch.export leaves `torch.tensor([1.0, 2.0])` in a branch as an attribute of its graph;
`run_decompositions` then fails, and a weight in there would be stored a second time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    TensorArgument,
)

from portrt import torch_internals
from portrt.graphs import nested
from portrt.graphs.control_flow import OPERANDS


def lift_nested_constants(program: ExportedProgram) -> ExportedProgram:
    """Replace the constants of branches by constants of the program.

    Args:
        program: Not modified; returned as it is if no branch has a constant.
    """
    if not any(
        _constants(inner)
        for inner in nested.graph_modules(program.graph_module)
        if inner is not program.graph_module
    ):
        return program
    root = nested.copied(program.graph_module)
    lifted = _Lifted()
    lifted.from_calls(root)
    first = next(iter(root.graph.nodes))
    specs = []
    for name, (_, value) in lifted.constants.items():
        with root.graph.inserting_before(first):
            node = root.graph.placeholder(name)
        node.meta["val"] = value
        for user in root.graph.find_nodes(op="get_attr", target=name):
            user.replace_all_uses_with(node)
            root.graph.erase_node(user)
        specs.append(InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(node.name), name))
    root.recompile()
    signature = program.graph_signature
    return torch_internals.program_from_graph(
        program,
        root,
        ExportGraphSignature([*specs, *signature.input_specs], list(signature.output_specs)),
        program.state_dict,
        {**program.constants, **{name: held for name, (held, _) in lifted.constants.items()}},
    )


def _constants(module: torch.fx.GraphModule) -> dict[torch.fx.Node, torch.Tensor]:
    """Return the nodes that read tensor attributes of the graph's module, with the tensors."""
    found = {}
    for node in module.graph.find_nodes(op="get_attr"):
        held = getattr(module, str(node.target), None)
        if isinstance(held, torch.Tensor):
            found[node] = held
    return found


class _Lifted:
    """Turns the constants of called graphs into placeholders, from the innermost graph outwards."""

    def __init__(self) -> None:
        self.constants: dict[str, tuple[torch.Tensor, Any]] = {}  # name -> tensor, fake value

    def from_calls(self, module: torch.fx.GraphModule) -> list[str]:
        """Lift constants out of the graphs that nodes of `module` call.

        In `module` the constants are then read by `get_attr` nodes with their new names.

        Returns:
            The names of the lifted constants.
        """
        names: list[str] = []
        for node in list(module.graph.nodes):
            graphs = list(nested.graphs_of_call(module, node).values())
            if not graphs or node.target not in OPERANDS:
                continue
            position = OPERANDS[node.target][-1]
            own = dict.fromkeys(name for inner in graphs for name in self._from(inner))
            for inner in graphs:
                _take(inner, {name: self.constants[name][1] for name in own})
            with module.graph.inserting_before(node):
                readers = [self._read(module.graph, name) for name in own]
            args = list(node.args)
            args[position] = type(args[position])([*args[position], *readers])
            node.args = tuple(args)
            names += own
        return names

    def _from(self, module: torch.fx.GraphModule) -> list[str]:
        names = self.from_calls(module)
        for node, tensor in _constants(module).items():
            name = f"portrt_constant_{len(self.constants)}"
            if hasattr(module, str(node.target)):
                delattr(module, str(node.target))
            self.constants[name] = tensor.detach(), node.meta["val"]
            node.target = name
            names.append(name)
        return names

    def _read(self, graph: torch.fx.Graph, name: str) -> torch.fx.Node:
        node = graph.create_node("get_attr", name)
        node.meta["val"] = self.constants[name][1]
        return node


def _take(module: torch.fx.GraphModule, values: dict[str, Any]) -> None:
    """Replace the `get_attr` nodes of these names by placeholders after the existing ones."""
    graph = module.graph
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for name, value in values.items():
        with graph.inserting_after(last):
            last = graph.placeholder(name)
        last.meta["val"] = value
        for reader in graph.find_nodes(op="get_attr", target=name):
            reader.replace_all_uses_with(last)
            graph.erase_node(reader)
    module.recompile()
