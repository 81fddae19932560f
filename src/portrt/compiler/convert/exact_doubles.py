"""Keep float64 constants accurate: torch.onnx writes a Python float as a float32 constant.

Such a number is written as the sum of two float32 numbers, which keeps 48 bits of the mantissa.
"""

from __future__ import annotations

import torch

aten = torch.ops.aten
# Operator -> position of its number.
_VALUE_ARGUMENT = {
    aten.scalar_tensor.default: 0,
    aten.full.default: 1,
    aten.full_like.default: 1,
}


def exact_doubles(graph_module: torch.fx.GraphModule) -> None:
    """Split the numbers that fill float64 tensors and are not exact in float32, in place."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        position = _VALUE_ARGUMENT.get(node.target)
        value = node.meta.get("val")
        if position is None or not isinstance(value, torch.Tensor) or value.dtype != torch.float64:
            continue
        number = node.args[position]
        if not isinstance(number, float) or number != number or number in (_single(number),):
            continue
        high = _single(number)
        args = list(node.args)
        args[position] = _single(number - high)
        with graph.inserting_after(node):
            low = graph.call_function(node.target, tuple(args), dict(node.kwargs))
        with graph.inserting_after(low):
            both = graph.call_function(aten.add.Tensor, (node, low))
        low.meta, both.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(both, delete_user_cb=lambda user, both=both: user is not both)
        args[position] = high
        node.args = tuple(args)


def _single(number: float) -> float:
    """Round to the nearest float32 number."""
    return float(torch.tensor(number, dtype=torch.float32))
