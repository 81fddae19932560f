"""Values of nodes that follow from constants alone, computed by PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from portrt import torch_internals
from portrt.weights import storable

aten = torch.ops.aten

# Their values are undefined: zeros, so that every compilation makes the same.
_UNDEFINED = {
    *(aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default),
    *(aten.empty_permuted.default, aten.new_empty.default, aten.new_empty_strided.default),
}
_NAMESPACES = ("aten", "prims")
_STORED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


class KnownValues:
    """The nodes of a graph whose values follow from constants.

    The graph need not be functional: what an operator may write to is not known, before it either.

    Args:
        graph: The graph.
        tensors: Placeholder name -> tensor that no call changes.
    """

    def __init__(self, graph: torch.fx.Graph, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self._values: dict[torch.fx.Node, Any] = {}
        self._order = {node: index for index, node in enumerate(graph.nodes)}
        self.nodes: set[torch.fx.Node] = set()
        written = {source for node in self._order for source in self._written(node)}
        for node in self._order:
            if node not in written and self._is_known(node):
                self.nodes.add(node)

    def __contains__(self, node: torch.fx.Node) -> bool:
        return node in self.nodes

    def of(self, node: torch.fx.Node) -> Any:
        """Compute the value of one of `nodes`, and what it needs.

        Raises:
            Exception: As the operator does on these values.
        """
        needed, ahead = set(), [node]
        while ahead:
            item = ahead.pop()
            if item not in needed and item not in self._values:
                needed.add(item)
                ahead += item.all_input_nodes
        with torch.no_grad():
            for item in sorted(needed, key=self._order.__getitem__):
                self._values[item] = self._computed(item)
        return self._values[node]

    def sources(self, node: torch.fx.Node) -> set[torch.fx.Node]:
        """Return the nodes that one of `nodes` is computed from, and itself."""
        found: set[torch.fx.Node] = set()
        ahead = [node]
        while ahead:
            item = ahead.pop()
            if item not in found:
                found.add(item)
                ahead += item.all_input_nodes
        return found

    def _is_known(self, node: torch.fx.Node) -> bool:
        if node.op == "placeholder":
            return node.name in self._tensors
        if node.op != "call_function" or not set(node.all_input_nodes) <= self.nodes:
            return False
        if not isinstance(node.target, torch._ops.OpOverload):
            return node.target is operator.getitem or torch_internals.is_symbolic_call(node)
        if node.target.namespace not in _NAMESPACES or _is_mutable(node.target):
            return False
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            return False
        return bool(node.target._schema.returns)

    def _computed(self, node: torch.fx.Node) -> Any:
        if node.op == "placeholder":
            return self._tensors[node.name].detach()
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self._values.__getitem__)
        target: Any = node.target
        found = target(*args, **kwargs)
        return torch.zeros_like(found) if node.target in _UNDEFINED else found

    def _written(self, node: torch.fx.Node) -> list[torch.fx.Node]:
        """Return the tensors that a node may write to, or that are views of those."""
        target: Any = node.target
        if not (
            isinstance(target, torch._ops.HigherOrderOperator)
            or (isinstance(target, torch._ops.OpOverload) and _is_mutable(target))
        ):
            return []
        return [source for item in node.all_input_nodes for source in self.sources(item)]


def _is_mutable(operator: torch._ops.OpOverload) -> bool:
    # `torch.tensor` in a model is captured with a detach_, which writes nothing.
    return operator._schema.is_mutable and operator is not aten.detach_.default


def constant_tensors(
    program: ExportedProgram, *, immutable_weights: bool = True
) -> dict[str, tuple[str, torch.Tensor]]:
    """Return placeholder name -> (name, tensor) of parameters, constants and unwritten buffers.

    Without `immutable_weights`, of constants that are neither a parameter nor a buffer.
    """
    kinds = _STORED if immutable_weights else (InputKind.CONSTANT_TENSOR,)
    signature = program.graph_signature
    mutated = {*signature.buffers_to_mutate.values(), *signature.parameters_to_mutate.values()}
    found = {}
    for spec in signature.input_specs:
        if spec.kind not in kinds or spec.target is None or spec.target in mutated:
            continue
        held = program.state_dict.get(spec.target)
        tensor = program.constants.get(spec.target) if held is None else held
        if _is_plain(tensor):
            found[spec.arg.name] = (spec.target, tensor)
    return found


def _is_plain(value: Any) -> bool:
    """Return whether it is a tensor, not of a subclass, that a weights image can hold."""
    if not isinstance(value, torch.Tensor) or not storable(value.dtype):
        return False
    return type(value.detach()) is torch.Tensor and value.layout is torch.strided
