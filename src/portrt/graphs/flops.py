"""Floating-point operations of a node, as `torch.utils.flop_counter` counts them.

It counts products and sums of matrix products, convolutions and attention, each as one operation;
everything else counts nothing. Sizes that vary are those of the example inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from portrt import torch_internals

# What the counter knows through the operators that these consist of.
_COMPOSITE = frozenset(
    f"aten::{name}"
    for name in (
        *("bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        *("conv_transpose3d", "einsum", "gru", "linear", "lstm", "matmul", "rnn_relu", "rnn_tanh"),
        *("scaled_dot_product_attention", "tensordot"),
    )
)


def flops_of(node: torch.fx.Node) -> int:
    """Operations of one call; 0 where nobody counts them."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return 0
    if target.overloadpacket not in flop_registry and target._schema.name not in _COMPOSITE:
        return 0
    try:
        args, kwargs = tree_map(_stand_in, (node.args, node.kwargs))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            target(*args, **kwargs)
        return int(counter.get_total_flops())
    except Exception:  # a size that the data decides, or an operator without a meta kernel
        return 0


def _stand_in(value: Any) -> Any:
    """A tensor without memory for a node that gives one, and the example's size for a size."""
    if isinstance(value, torch.fx.Node):
        return tree_map(_stand_in, value.meta.get("val"))
    if isinstance(value, torch.Tensor):
        sizes = [torch_internals.hint_of(size) for size in value.shape]
        return torch.empty(sizes, dtype=value.dtype, device="meta")  # type: ignore[arg-type]
    if isinstance(value, torch.SymInt):
        return torch_internals.hint_of(value)
    return "meta" if isinstance(value, torch.device) else value
