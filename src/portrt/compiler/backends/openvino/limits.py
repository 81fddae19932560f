"""Nodes that OpenVINO's CPU plugin computes differently from PyTorch: they stay in PyTorch.

Seen with 2026.4.1, by the rows of the operator tables and random graphs.
"""

from __future__ import annotations

from typing import Any

import torch

from portrt.compiler.backends.openvino.integer_ranges import fits
from portrt.compiler.backends.support import tensors_of
from portrt.graphs import symbols
from portrt.verdict import YES, Verdict

_aten = torch.ops.aten
# float64 is float32 inside.
DTYPES = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
    }
)
# Comparisons without regard to NaN; the maximum of minus infinities is finite.
_EXTREMES = {
    *(_aten.amax, _aten.amin, _aten.argmax, _aten.argmin, _aten.max, _aten.min, _aten.topk),
    *(_aten.sort, _aten.argsort, _aten.kthvalue, _aten.median, _aten.nanmedian, _aten.mode),
    *(_aten.sign, _aten.sgn, _aten.cummax, _aten.cummin, _aten.logcumsumexp, _aten.logsumexp),
}
# An index that is out of range reads, or writes, other memory; what reads whole rows gives zeros.
_INDEXED = {
    *(_aten.gather, _aten.scatter, _aten.scatter_add, _aten.scatter_reduce, _aten.index_put),
    *(_aten.index_add, _aten.index_copy, _aten.index_fill, _aten.index_reduce, _aten.put),
    *(_aten.masked_scatter, _aten.take, _aten.take_along_dim, _aten.select_scatter),
    *(_aten.slice_scatter, _aten.diagonal_scatter),
}


# Positions between elements, weights of cubic and antialiased resizing, and sizes by fractions.
_RESIZING = ("upsample_", "_upsample_")
_ROUNDED = {_aten.div, _aten.floor_divide, _aten.fmod, _aten.remainder}


def matches_pytorch(node: torch.fx.Node) -> Verdict:
    """Return whether OpenVINO computes a node as PyTorch does.

    Args:
        node: A node with a fake value in `meta`.
    """
    packet = getattr(node.target, "overloadpacket", None)
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return _no("runs no control flow", "torch.where instead")
    if packet in _EXTREMES:
        return _no("compares without regard to NaN")
    if packet in _INDEXED or (packet is _aten.index and _index_count(node) != 1):
        return _no("takes indices that are out of range", "one index tensor at a time")
    if packet in (_aten.avg_pool1d, _aten.avg_pool2d, _aten.avg_pool3d) and _counts_beyond(node):
        return _no("counts the elements beyond the padding, with ceil_mode", "ceil_mode=False")
    if packet is not None and packet.__name__.startswith(_RESIZING):
        return _no("resizes with other weights")
    if packet in _ROUNDED and _is_rounded(node):
        return _no("rounds quotients of infinities, and by numbers, otherwise")
    if not fits(node):
        return _no(
            "computes integers in 24 bits, and these may be larger", "floating-point numbers"
        )
    return _sizes(node)


def _no(fact: str, instead: str = "") -> Verdict:
    remedy = "leave openvino out of engines"
    return Verdict.no(
        "wrong_results", f"openvino {fact}", f"use {instead}, or {remedy}" if instead else remedy
    )


def _index_count(node: torch.fx.Node) -> int:
    indices: Any = node.args[1]
    found = [item for item in indices if item is not None]
    masks = [item for item in found if item.meta["val"].dtype in (torch.bool, torch.uint8)]
    return 0 if masks else len(found)


def _is_rounded(node: torch.fx.Node) -> bool:
    value: Any = node.meta["val"]
    is_division = getattr(node.target, "overloadpacket", None) is _aten.div
    plain = is_division and node.kwargs.get("rounding_mode") is None
    return bool(value.dtype.is_floating_point) and not plain


def _counts_beyond(node: torch.fx.Node) -> bool:
    args: Any = [*node.args, *[None] * 7]
    ceil_mode = node.kwargs.get("ceil_mode", args[4])
    return bool(ceil_mode)


def _sizes(node: torch.fx.Node) -> Verdict:
    sizes = [size for tensor in _tensors(node) for size in tensor.shape]
    if symbols.unbacked_symbols(sizes):
        return _no("has no data-dependent sizes")
    if any(type(size) is int and size == 0 for size in sizes):
        return _no("computes nothing without elements", "at least one element")
    return YES


def _tensors(node: torch.fx.Node) -> list[torch.Tensor]:
    """Return the fake tensors that a node takes, and those of its results that are used."""
    if not isinstance(node.meta.get("val"), (list, tuple)):
        return tensors_of(node)
    read = [user.meta.get("val") for user in node.users]
    taken = [item.meta.get("val") for item in node.all_input_nodes]
    return [item for item in (*read, *taken) if isinstance(item, torch.Tensor)]
