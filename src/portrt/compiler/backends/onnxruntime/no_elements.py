"""Operators that ONNX Runtime does not compute as PyTorch where a size is 0.

Seen with 1.32. Recurrent layers, InstanceNormalization and a Scan end the process; Attention,
GroupNormalization, a convolution of an image without pixels, ArgMax, and padding with elements of
the tensor fail; means of nothing, those of losses too, are 0, and maxima infinite, where PyTorch's
are NaN or an error. All others were tried, too.
"""

from __future__ import annotations

from typing import Any

import torch

from portrt.compiler.sizes.nonzero_sizes import sizes_of_tensors

_aten = torch.ops.aten
_RECURRENT = frozenset({_aten.lstm, _aten.gru})
_SCANS = frozenset({_aten.cumprod, _aten.logcumsumexp})
_ENDING = frozenset({*_RECURRENT, *_SCANS, _aten.instance_norm})
_LOSSES = frozenset(
    {
        *(_aten.binary_cross_entropy, _aten.binary_cross_entropy_with_logits, _aten.huber_loss),
        *(_aten.cross_entropy_loss, _aten.l1_loss, _aten.mse_loss, _aten.smooth_l1_loss),
        *(_aten.nll_loss, _aten.nll_loss_nd, _aten.soft_margin_loss),
    }
)
_WHOLE = frozenset(
    {
        *(*_ENDING, *_LOSSES, _aten.scaled_dot_product_attention),
        *(_aten.group_norm, _aten.native_group_norm),
    }
)
_REDUCTIONS = frozenset(
    {
        *(_aten.amax, _aten.amin, _aten.argmax, _aten.argmin, _aten.max, _aten.mean, _aten.min),
        *(_aten.std, _aten.std_mean, _aten.var, _aten.var_mean),
        torch.ops.prims.var,  # in which PyTorch's decomposition of variances ends
    }
)
_ROTATIONS = frozenset({_aten.roll})  # whose shifts are taken modulo the size
_CONVOLUTIONS = frozenset({_aten.conv1d, _aten.conv2d, _aten.conv3d, _aten.convolution})


def sizes_that_matter(node: torch.fx.Node) -> list[Any]:
    """Return the sizes of a node that must not be 0."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet in _WHOLE or (
        packet is _aten.pad and _argument(node, 2, "mode", "constant") != "constant"
    ):
        return sizes_of_tensors([*node.all_input_nodes, node])
    if packet not in _REDUCTIONS | _CONVOLUTIONS | _ROTATIONS:
        return []
    first: Any = node.args[0]
    shape = list(first.meta["val"].shape)
    if packet in _CONVOLUTIONS:
        return shape[2:]
    place, name = (2, "dims") if packet in _ROTATIONS else (1, "dim")
    axes = _argument(node, place, name)
    if isinstance(axes, (list, tuple)) and axes:
        return [shape[axis] for axis in axes] if shape else []
    return shape if type(axes) is not int or not shape else [shape[axes]]


def ends_the_process(node: torch.fx.Node) -> bool:
    """Return whether the process may end where a size of the node is 0."""
    return getattr(node.target, "overloadpacket", None) in _ENDING


def _argument(node: torch.fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)
