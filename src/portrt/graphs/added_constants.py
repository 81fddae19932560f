"""Constants that a graph gets beside those of the program."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    TensorArgument,
)

from portrt import torch_internals

_PREFIX = "portrt_folded_"


class AddedConstants:
    """Adds placeholders for tensors to a graph, before all others.

    Attributes:
        tensors: Name of the placeholder, and of the constant -> tensor.
    """

    def __init__(self, graph: torch.fx.Graph) -> None:
        self._graph = graph
        self.tensors: dict[str, torch.Tensor] = {}

    def add(self, name: str, tensor: torch.Tensor) -> torch.fx.Node:
        """Add a placeholder.

        Args:
            name: Name of the node whose value it is, or another that no constant has.
            tensor: Copied, so that it shares no memory with another constant.
        """
        first = next(iter(self._graph.nodes))
        with self._graph.inserting_before(first):
            node = self._graph.placeholder(f"{_PREFIX}{name}")
        node.target = node.name
        held = tensor.detach().contiguous().clone()
        mode = torch_internals.fake_mode_of(self._graph)
        node.meta["val"] = mode.from_tensor(held, static_shapes=True)
        self.tensors = {node.name: held, **self.tensors}
        return node

    def signature(self, like: ExportGraphSignature) -> ExportGraphSignature:
        """Return a signature with the constants beside what another has."""
        specs = [
            InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name), name)
            for name in self.tensors
        ]
        return ExportGraphSignature([*specs, *like.input_specs], list(like.output_specs))

    def program(self, like: ExportedProgram, module: torch.fx.GraphModule) -> ExportedProgram:
        """Make the program of a graph with the constants, otherwise like another one."""
        return torch_internals.program_from_graph(
            like,
            module,
            self.signature(like.graph_signature),
            like.state_dict,
            {**like.constants, **self.tensors},
        )
