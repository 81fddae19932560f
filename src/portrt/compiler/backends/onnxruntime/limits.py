"""Nodes that ONNX Runtime's kernels compute differently from PyTorch: they stay in PyTorch."""

from __future__ import annotations

import torch

from portrt.compiler.backends.onnxruntime.no_elements import (
    ends_the_process,
    sizes_that_matter,
)
from portrt.graphs import symbols
from portrt.targets.versions import at_least
from portrt.verdict import YES, Verdict

_aten = torch.ops.aten
_PRODUCTS = (_aten.prod.default, _aten.prod.dim_int)
_POWERS = (_aten.pow.Tensor_Tensor, _aten.pow.Scalar)
_DIVISIONS = (_aten.div, _aten.floor_divide, _aten.remainder, _aten.fmod)
_INDEXING_ROWS = {_aten.embedding, _aten.index_select}
_INDEXING_ELEMENTS = {_aten.gather, _aten.scatter, _aten.scatter_add, _aten.scatter_reduce}
# PyTorch decomposes these to index_put, which takes negative indices.
_INDEXED_AS_PUT = {_aten.index_add, _aten.index_copy, _aten.index_reduce}
# The oldest ONNX Runtime release in which an integer division by zero is an error. In 1.23 and 1.24
# it was seen to end the process.
SAFE_DIVISION = "1.25"


def matches_pytorch(node: torch.fx.Node, version: str) -> Verdict:
    """Return whether ONNX Runtime computes a node as PyTorch does.

    Args:
        node: A node with a fake value in `meta`.
        version: Version of the ONNX Runtime that builds the engine.
    """
    return _multiplies_exactly(node) and _divides_safely(node, version) and _has_elements(node)


def divides_integers(node: torch.fx.Node) -> bool:
    """Return whether a node divides integers by something that may be zero."""
    if getattr(node.target, "overloadpacket", None) not in _DIVISIONS:
        return False
    made, by = node.meta["val"], node.args[1]
    if made.dtype.is_floating_point or made.dtype.is_complex:
        return False
    return not isinstance(by, int) or by == 0


def refuses_negative_indices(node: torch.fx.Node, *, whole_rows: bool = False) -> bool:
    """Return whether a node has an index that PyTorch refuses if it is negative.

    Args:
        node: The node.
        whole_rows: Only where an index is one of many elements.
    """
    packet = getattr(node.target, "overloadpacket", None)
    made_of = getattr(node.meta.get("original_aten"), "overloadpacket", None)
    elements = packet in _INDEXING_ELEMENTS and not whole_rows
    return packet in _INDEXING_ROWS or elements or made_of in _INDEXED_AS_PUT


def _multiplies_exactly(node: torch.fx.Node) -> Verdict:
    """Return no for products and powers of integers, which ONNX Runtime computes in float64."""
    if node.target not in (*_PRODUCTS, *_POWERS):
        return YES
    made, given = node.meta["val"], node.all_input_nodes[0].meta["val"]  # bools multiply to 0 or 1
    if made.dtype.is_floating_point or (node.target in _PRODUCTS and given.dtype == torch.bool):
        return YES
    return Verdict.no(
        "wrong_results",
        "onnxruntime multiplies integers as float64, which is not exact beyond 2^53",
        "multiply floating-point numbers, for example with dtype=torch.float64",
    )


def _has_elements(node: torch.fx.Node) -> Verdict:
    """Return no for sizes of 0; of dynamic ones an engine stores which must not be 0."""
    sizes = sizes_that_matter(node)
    data_dependent = ends_the_process(node) and symbols.unbacked_symbols(sizes)
    if not data_dependent and not any(type(size) is int and size == 0 for size in sizes):
        return YES
    return Verdict.no(
        "wrong_results",
        "onnxruntime does not compute it without elements, and a size of it "
        + ("is data-dependent" if data_dependent else "is 0"),
        "give it at least one element, or leave it to PyTorch",
    )


def _divides_safely(node: torch.fx.Node, version: str) -> Verdict:
    if at_least(SAFE_DIVISION, version) or not divides_integers(node):
        return YES
    return Verdict.no(
        "library_version",
        f"an integer division by zero would end the process in onnxruntime {version}",
        f"install onnxruntime {SAFE_DIVISION} or newer",
    )
