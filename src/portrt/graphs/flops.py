"""Floating-point operations of a node, as `torch.utils.flop_counter` counts them.

Counts the multiplications and additions of matrix products, convolutions and attention; all other
operators count 0. Dynamic sizes have their values in the example inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from portrt import torch_internals

# Composite operators, which the counter covers through the operators that they call.
_COMPOSITE = frozenset(
    f"aten::{name}"
    for name in (
        *("bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
        *("conv_transpose3d", "einsum", "gru", "linear", "lstm", "matmul", "rnn_relu", "rnn_tanh"),
        *("scaled_dot_product_attention", "tensordot"),
    )
)


def flops_of(node: torch.fx.Node) -> int:
    """Return the operations of one call; 0 for operators without a formula."""
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
    except Exception:  # a data-dependent size, or an operator without a meta kernel
        return 0


def _stand_in(value: Any) -> Any:
    """Replace nodes by meta tensors of their shapes, and symbolic sizes by the example's sizes."""
    if isinstance(value, torch.fx.Node):
        return tree_map(_stand_in, value.meta.get("val"))
    if isinstance(value, torch.Tensor):
        sizes = [torch_internals.hint_of(size) for size in value.shape]
        return torch.empty(sizes, dtype=value.dtype, device="meta")  # type: ignore[arg-type]
    if isinstance(value, torch.SymInt):
        return torch_internals.hint_of(value)
    return "meta" if isinstance(value, torch.device) else value
