"""Nodes of a block that a library names in its layers and error messages.

ONNX nodes of the graph node `add_1` are called `node_add_1`, `node_add_1_0` and the like if it has
several outputs, or `node_add_1.Mul_3` (see `convert/origins.py`); builders combine these names into
names of layers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# Builders prefix names ("reshape_before_node_add_1"), never with a letter or digit directly before.
_NODE = re.compile(r"(?<![A-Za-z0-9])node_(\w+)")
_INDEX = re.compile(r"_+\d+$")
# TensorRT's name of a group of layers that Myelin compiles: the first and the last of them.
_RANGE = re.compile(r"ForeignNode\[(.*?)\.\.\.(.*?)\]")


def nodes_named(text: str, names: Collection[str]) -> set[str]:
    """Return those of `names` whose ONNX nodes occur in a message of a library."""
    found = set()
    for word in _NODE.findall(text):
        for name in (word, _INDEX.sub("", word)):
            if name in names:
                found.add(name)
                break
    return found


def nodes_of_layer(layer: str, order: Sequence[str]) -> tuple[str, ...]:
    """Return the nodes of a block that a layer of an engine computes, according to its name.

    A range ("{ForeignNode[node_a...node_d]}") stands for all nodes from the first to the last in
    the order of the graph, although a few of them may be in other layers. If one end of a range is
    not a node but, for example, a weight, only the named nodes are returned.

    Args:
        layer: Name of the layer in TensorRT or ONNX Runtime.
        order: Names of the nodes of the block, in the order of its graph.

    Returns:
        Names among `order`, in that order; empty for a layer that the library inserted.
    """
    position = {name: index for index, name in enumerate(order)}
    found = {position[name] for name in nodes_named(layer, position)}
    for first, last in _RANGE.findall(layer):
        begin = [position[name] for name in nodes_named(first, position)]
        end = [position[name] for name in nodes_named(last, position)]
        if begin and end:
            found |= set(range(min(begin), max(end) + 1))
    return tuple(order[index] for index in sorted(found))
