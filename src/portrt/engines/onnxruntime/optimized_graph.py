"""Maps the nodes of ONNX Runtime's optimized graph to the nodes of the block.

The optimizer fuses and renames nodes, but keeps the names of values: a node of the optimized graph
computes what lies between its inputs and its outputs in the original graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

# ONNX Runtime's blocked layout for convolutions: suffix of the names of its nodes, the nodes that
# convert to and from it, and the operators that are fused into such a convolution.
_LAYOUT = "_nchwc"
_COPIES = frozenset({"ReorderInput", "ReorderOutput"})
_FUSED = frozenset({"Add", "Sum", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip"})
# Prefix of a value that was cast to another precision.
_CAST = "InsertedPrecisionFreeCast_"


@dataclass(frozen=True)
class GraphNode:
    """A node of an ONNX graph; `source` is the block's node from its metadata, or empty."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: str

    @classmethod
    def of(cls, node: Any) -> GraphNode:
        source = next((p.value for p in node.metadata_props if p.key == "torch_node"), "")
        outputs = tuple(name for name in node.output if name)
        return cls(node.name, node.op_type, tuple(filter(None, node.input)), outputs, source)


def nodes_behind(
    made: Sequence[GraphNode], given: Sequence[GraphNode]
) -> dict[str, tuple[str, ...]]:
    """Map each node of an optimized graph to the block's nodes that it computes.

    A node that is identified neither by its values nor by its name, such as a cast to another
    precision, is counted to the nodes that use its outputs, or, without any, to those that compute
    its inputs.

    Args:
        made: The optimized graph, in topological order.
        given: The original graph, in topological order.

    Returns:
        Name of a node -> the block's nodes, in their order.
    """
    order = list(dict.fromkeys(node.source for node in given if node.source))
    place = {name: index for index, name in enumerate(order)}
    values = {name for node in given for name in (*node.inputs, *node.outputs)}
    flow = _Flow([_as_given(node, values) for node in made], given)
    by_name = {node.name: {node.source} - {""} for node in given}
    users: dict[str, set[str]] = {}  # value -> the block's nodes of its users
    found: dict[str, set[str]] = {}
    for node in reversed(made):
        sources = flow.between(_as_given(node, values)) or set(by_name.get(node.name, ()))
        if not sources and node.kind not in _COPIES:
            sources.update(*(by_name.get(name, ()) for name in _parts(node.name)))
            if not sources or len(node.outputs) > 1:  # several outputs: several nodes of the block
                sources.update(*(users.get(output, ()) for output in node.outputs))
        for name in node.inputs:
            users.setdefault(name, set()).update(sources)
        found[node.name] = sources
    makers: dict[str, set[str]] = {}  # value -> the block's nodes of its producer
    for node in made:
        if not found[node.name] and node.kind not in _COPIES:
            found[node.name].update(*(makers.get(name, ()) for name in node.inputs))
        makers.update(dict.fromkeys(node.outputs, found[node.name]))
    return {name: tuple(sorted(sources, key=place.__getitem__)) for name, sources in found.items()}


def _as_given(node: GraphNode, values: set[str]) -> GraphNode:
    """Rename the node's values to what they were before a cast to another precision."""

    def former(names: tuple[str, ...]) -> tuple[str, ...]:
        bare = [name.removeprefix(_CAST) for name in names]
        return tuple(b if b in values else name for b, name in zip(bare, names, strict=True))

    return replace(node, inputs=former(node.inputs), outputs=former(node.outputs))


class _Flow:
    """Finds the values of an optimized graph in the original graph."""

    def __init__(self, made: Sequence[GraphNode], given: Sequence[GraphNode]) -> None:
        self._producer = {output: node for node in given for output in node.outputs}
        self._names = {node.name for node in made}
        self._takers: dict[str, list[GraphNode]] = {}
        for node in given:
            for name in dict.fromkeys(node.inputs):
                self._takers.setdefault(name, []).append(node)
        computed = {o for node in made if node.kind not in _COPIES for o in node.outputs}
        # A convolution in another layout has a new output value, and the old node's name.
        renamed = {
            node.name: node.name.removesuffix(_LAYOUT)
            for node in made
            if node.name.endswith(_LAYOUT) and not self._producer.keys() & {*node.outputs}
        }
        computed |= set(renamed.values())
        self._renamed = {name: self._follow(value, computed) for name, value in renamed.items()}
        self._alive = {output for node in made for output in node.outputs}
        self._alive |= set(self._renamed.values())

    def _follow(self, value: str, computed: set[str]) -> str:
        """Follow the operators that are fused into such a convolution to its actual output."""
        while True:
            takers = self._takers.get(value, [])
            if len(takers) != 1 or takers[0].kind not in _FUSED or len(takers[0].outputs) != 1:
                break
            after = takers[0].outputs[0]
            if after in computed:
                break
            value = after
        return value

    def between(self, node: GraphNode) -> set[str]:
        """Collect the block's nodes from a node's outputs back to the values that still exist.

        Without those whose name another node of the optimized graph has kept.
        """
        found: set[str] = set()
        seen = set(node.inputs)
        waiting = [self._renamed[node.name]] if node.name in self._renamed else [*node.outputs]
        if node.kind in _COPIES:
            return found
        while waiting:
            name = waiting.pop()
            behind = self._producer.get(name)
            if name in seen or behind is None:
                continue
            if behind.name in self._names and behind.name != node.name:
                continue
            seen |= set(behind.outputs)
            found.add(behind.source)
            waiting += [value for value in behind.inputs if value not in self._alive]
        return found - {""}


def _parts(name: str) -> list[str]:
    """Split a name of a fused node: "fused node_a", "node_a/SomeFusion"."""
    return name.replace("/", " ").split()
