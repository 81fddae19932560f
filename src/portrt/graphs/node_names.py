"""Which nodes of a block the words of a library are about: names of layers, and error messages.

What torch.onnx makes of the node `add_1` is called `node_add_1`, `node_add_1_0` and the like where
it has several outputs, or `node_add_1.Mul_3` (`convert/origins.py` does that); builders put these
names together in their own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# Builders write words before a name ("reshape_before_node_add_1"), but no letter or digit.
_NODE = re.compile(r"(?<![A-Za-z0-9])node_(\w+)")
_INDEX = re.compile(r"_+\d+$")
# TensorRT's name of a group of layers that another compiler took: the first and the last of them.
_RANGE = re.compile(r"ForeignNode\[(.*?)\.\.\.(.*?)\]")


def nodes_named(text: str, names: Collection[str]) -> set[str]:
    """Those of `names` that a text of a library names as ONNX nodes."""
    found = set()
    for word in _NODE.findall(text):
        for name in (word, _INDEX.sub("", word)):
            if name in names:
                found.add(name)
                break
    return found


def nodes_of_layer(layer: str, order: Sequence[str]) -> tuple[str, ...]:
    """The nodes of a block that a layer of an engine computes, as far as its name tells.

    A range ("{ForeignNode[node_a...node_d]}") stands for all nodes from the first to the last in
    the order of the graph: a few of them may be in other layers. Of a range that begins or ends
    with something that is no node, such as a weight, only the nodes that are named are known.

    Args:
        layer: Its name, as TensorRT or ONNX Runtime writes it.
        order: Names of the nodes of the block, in the order of its graph.

    Returns:
        Names among `order`, in that order; empty for a layer that the library put in.
    """
    place = {name: index for index, name in enumerate(order)}
    found = {place[name] for name in nodes_named(layer, place)}
    for first, last in _RANGE.findall(layer):
        begin = [place[name] for name in nodes_named(first, place)]
        end = [place[name] for name in nodes_named(last, place)]
        if begin and end:
            found |= set(range(min(begin), max(end) + 1))
    return tuple(order[index] for index in sorted(found))
