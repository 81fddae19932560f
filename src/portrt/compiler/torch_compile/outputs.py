"""Outputs of a Dynamo graph that share memory, or that are sizes: PyTorch computes these.

An engine returns new tensors. A view of an argument must stay one, because the code after the
graph may write to it, and two outputs that share memory must go on to do so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from portrt.torch_internals.dynamo import storage_key

# A key that tensors with the same memory have in common.
_Memory = int


class RefusedGraphError(Exception):
    """The graph cannot be compiled; the text is the reason."""


@dataclass(frozen=True)
class Outputs:
    """How the outputs of a graph come from those of engines.

    Attributes:
        computed: The nodes that the compiled program returns.
        rest: Called with the graph's arguments and then with the values of `computed`, returns all
            outputs; None if `computed` are the outputs.
    """

    computed: tuple[torch.fx.Node, ...]
    rest: torch.fx.GraphModule | None


def value_of(node: torch.fx.Node) -> Any:
    """Return what Dynamo knows of a node: a fake tensor, a symbolic size, or a tuple of these."""
    return node.meta.get("example_value")


def memory_of(value: Any) -> _Memory | None:
    """Return the memory of a tensor, or of a tuple of tensors that share it; else None."""
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        found = {memory_of(item) for item in value}
        return found.pop() if len(found) == 1 else None
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    try:
        return storage_key(value)
    except NotImplementedError:  # within torch.vmap
        return None


def split_outputs(graph: torch.fx.Graph) -> Outputs:
    """Find which outputs of a Dynamo graph the compiled program returns.

    Raises:
        RefusedGraphError: An output shares memory in a way that is not that of a view.
    """
    results: Any = graph.output_node().args[0]
    first: dict[_Memory, torch.fx.Node] = {}
    for node in graph.nodes:
        memory = memory_of(value_of(node)) if node.op != "output" else None
        if memory is not None:
            first.setdefault(memory, node)
    nodes = [item for item in results if isinstance(item, torch.fx.Node)]
    memories = [memory_of(value_of(node)) for node in dict.fromkeys(nodes)]
    computed: dict[torch.fx.Node, None] = {}
    for node in nodes:
        memory = memory_of(value_of(node))
        if memory is not None:
            start = first[memory]
            if start.op in ("placeholder", "get_attr"):
                continue
            computed[start if memories.count(memory) > 1 else node] = None
        elif not _is_size_of_arguments(node):
            computed[node] = None
    if list(computed) == list(results):
        return Outputs(tuple(computed), None)
    return Outputs(tuple(computed), _rest(graph, results, tuple(computed)))


def _is_size_of_arguments(node: torch.fx.Node) -> bool:
    """Return whether a node is a size, or arithmetic on sizes, of the graph's arguments."""
    if node.op == "placeholder":
        return True
    is_size = isinstance(value_of(node), (torch.SymInt, torch.SymFloat, torch.SymBool, torch.Size))
    is_number = isinstance(value_of(node), (int, float, bool))
    return (is_size or is_number) and all(map(_is_size_of_arguments, node.all_input_nodes))


def _rest(
    graph: torch.fx.Graph, results: Any, computed: tuple[torch.fx.Node, ...]
) -> torch.fx.GraphModule:
    made = torch.fx.Graph()
    known: dict[torch.fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            known[node] = made.placeholder(node.name)
    for index, node in enumerate(computed):
        known[node] = made.placeholder(f"computed_{index}")
    replay = _Replay(made, known)
    made.output(torch.fx.map_arg(tuple(results), replay.copy_of))
    return torch.fx.GraphModule(graph.owning_module or {}, made)


class _Replay:
    """Copies views and sizes to another graph.

    Args:
        graph: Takes the copies.
        known: Node -> its copy; extended.
    """

    def __init__(self, graph: torch.fx.Graph, known: dict[torch.fx.Node, torch.fx.Node]) -> None:
        self._graph, self._known = graph, known

    def copy_of(self, node: torch.fx.Node) -> torch.fx.Node:
        if node not in self._known:
            self._known[node] = self._made(node)
        return self._known[node]

    def _made(self, node: torch.fx.Node) -> torch.fx.Node:
        memory = memory_of(value_of(node))
        if memory is None or node.op == "get_attr":
            if node.op != "get_attr" and not _is_size_of_arguments(node):
                raise RefusedGraphError(f"its output depends on the value of {node.name}")
            return self._graph.node_copy(node, self.copy_of)
        sources = [n for n in node.all_input_nodes if memory_of(value_of(n)) == memory]
        if not sources:
            raise RefusedGraphError(f"the memory of its output {node.name} is of no other tensor")
        if _is_same_view(value_of(node), value_of(sources[0])):
            return self.copy_of(sources[0])  # written in place, or no operation
        if _name_of(node).endswith("_") and not _name_of(node).endswith("__"):
            raise RefusedGraphError(f"{_name_of(node)} changes the shape of an argument in place")
        return self._graph.node_copy(node, self.copy_of)


def _name_of(node: torch.fx.Node) -> str:
    target = node.target
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def _is_same_view(one: Any, other: Any) -> bool:
    return (
        isinstance(one, torch.Tensor)
        and isinstance(other, torch.Tensor)
        and (one.dtype, one.is_conj(), one.is_neg())
        == (other.dtype, other.is_conj(), other.is_neg())
        and _layout(one) == _layout(other)
    )


def _layout(tensor: torch.Tensor) -> tuple[str, ...]:
    """Return sizes, strides and offset as text: equal symbols are equal text, and no guard."""
    return str(tuple(tensor.shape)), str(tensor.stride()), str(tensor.storage_offset())
