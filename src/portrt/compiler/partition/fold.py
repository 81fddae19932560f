"""Constants of a graph that no engine computes: PyTorch computes them now, once.

An operator that a backend lacks, or a dtype such as float64, is no obstacle where the result
follows from constants, and a block without inputs needs no engine. What is derived from parameters
stays as it is, if an engine could hold it: it would be stored a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from portrt import torch_internals
from portrt.graphs.added_constants import AddedConstants
from portrt.graphs.known_values import KnownValues, constant_tensors
from portrt.verdict import Verdict
from portrt.weights import storable

aten = torch.ops.aten

# Of a constant that is computed from no tensors, or from smaller ones.
_MAX_BYTES = 1 << 20


class Folder:
    """Folds constants of a program's outermost graph, in place.

    Args:
        program: The program.
        supports: Returns whether every engine can hold a node.
        immutable_weights: Whether parameters and buffers are constants.

    Attributes:
        weights: Placeholder name -> (name, tensor), of the constants that are no longer changed;
            those that were added are among them.
        folded: Names of the parameters and buffers that were computed with.
    """

    def __init__(
        self,
        program: ExportedProgram,
        supports: Callable[[torch.fx.Node], Verdict],
        *,
        immutable_weights: bool = True,
    ) -> None:
        self._program = program
        self._supports = supports
        self._graph = program.graph
        self.weights = constant_tensors(program, immutable_weights=immutable_weights)
        tensors = {name: tensor for name, (_, tensor) in self.weights.items()}
        self._known = KnownValues(self._graph, tensors)
        self._added = AddedConstants(self._graph)
        self.folded: set[str] = set()
        self._parameters = {
            spec.arg.name
            for spec in program.graph_signature.input_specs
            if spec.kind is InputKind.PARAMETER
        }

    def fold_refused(self, verdicts: dict[torch.fx.Node, Verdict]) -> None:
        """Fold the nodes that an engine does not take; removes the verdicts of what is gone."""
        refused = {
            node
            for node, verdict in verdicts.items()
            if verdict.code != "left_out"
            and node in self._known
            and not any(source.name in self._parameters for source in self._known.sources(node))
            and (not verdict or not self._supports(node))
        }
        for node in self._fold(refused):
            verdicts.pop(node, None)

    def fold_groups(
        self, dropped: Iterable[tuple[torch.fx.Node, Verdict]]
    ) -> list[tuple[torch.fx.Node, Verdict]]:
        """Fold the nodes of blocks without inputs; returns the rest of what was dropped."""
        dropped = list(dropped)
        constant = {node for node, verdict in dropped if verdict.code == "constant_block"}
        gone = self._fold(constant & self._known.nodes)
        return [(node, verdict) for node, verdict in dropped if node not in gone]

    def finish(self) -> None:
        """Give the program the constants that were added to its graph."""
        if self._added.tensors:
            torch_internals.extend_constants(
                self._program,
                self._added.signature(self._program.graph_signature),
                self._added.tensors,
            )

    def _fold(self, nodes: Collection[torch.fx.Node]) -> set[torch.fx.Node]:
        """Replace those of the nodes that others use, and erase what is then unused."""
        ends = [node for node in nodes if not all(user in nodes for user in node.users)]
        replaced = [node for node in ends if self._replace(node)]
        gone: set[torch.fx.Node] = set()
        unused = {source for node in replaced for source in self._known.sources(node)}
        for node in reversed(self._graph.nodes):
            if node in unused and node.op == "call_function" and not node.users:
                gone.add(node)
                self._graph.erase_node(node)
        return gone

    def _replace(self, node: torch.fx.Node) -> bool:
        if not isinstance(node.meta.get("val"), torch.Tensor):
            return False
        try:
            value = self._known.of(node)
        except Exception:  # the model fails in the same way, where it runs
            return False
        if not self._is_stored(node, value):
            return False
        constant = self._added.add(node.name, value)
        self.folded |= {
            self.weights[source.name][0]
            for source in self._known.sources(node)
            if source.op == "placeholder"
        }
        self.weights[constant.name] = constant.name, self._added.tensors[constant.name]
        for user in list(node.users):
            own = constant
            if _may_write(user):
                with self._graph.inserting_before(user):
                    own = self._graph.call_function(aten.clone.default, (constant,))
                own.meta["val"] = constant.meta["val"]
            user.replace_input_with(node, own)
        return True

    def _is_stored(self, node: torch.fx.Node, value: torch.Tensor) -> bool:
        if not storable(value.dtype) or value.dtype.is_complex:
            return False
        given = {
            source: self.weights[source.name][1].nbytes
            for source in self._known.sources(node)
            if source.op == "placeholder"
        }
        return value.nbytes <= max(_MAX_BYTES, sum(given.values()))


def _may_write(user: torch.fx.Node) -> bool:
    """Return whether what a node is given can be written to: by it, or by the model's caller."""
    target: Any = user.target
    is_operator = isinstance(target, torch._ops.OpOverload)
    return user.op == "output" or (is_operator and target._schema.is_mutable)
