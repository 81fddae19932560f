"""What ONNX Runtime's kernels compute otherwise than PyTorch, and stays in PyTorch therefore."""

from __future__ import annotations

import torch

from portrt.targets.versions import at_least
from portrt.verdict import YES, Verdict

_aten = torch.ops.aten
_PRODUCTS = (_aten.prod.default, _aten.prod.dim_int)
_POWERS = (_aten.pow.Tensor_Tensor, _aten.pow.Scalar)
_DIVISIONS = (_aten.div, _aten.floor_divide, _aten.remainder, _aten.fmod)
# The oldest release in which a division of whole numbers by zero is an error. Seen: in 1.23 and
# 1.24 it ends the process.
SAFE_DIVISION = "1.25"


def matches_pytorch(node: torch.fx.Node, version: str) -> Verdict:
    """Whether it computes a node as PyTorch does, as far as dtypes and values tell.

    Args:
        node: With its value in `meta`.
        version: Of the ONNX Runtime that builds the engine.
    """
    return _multiplies_exactly(node) and _divides_safely(node, version)


def divides_integers(node: torch.fx.Node) -> bool:
    """Whether a node divides whole numbers by something that may be zero."""
    if getattr(node.target, "overloadpacket", None) not in _DIVISIONS:
        return False
    made, by = node.meta["val"], node.args[1]
    if made.dtype.is_floating_point or made.dtype.is_complex:
        return False
    return not isinstance(by, int) or by == 0


def _multiplies_exactly(node: torch.fx.Node) -> Verdict:
    """No for products and powers of whole numbers. Of bools, products are 0 or 1."""
    if node.target not in (*_PRODUCTS, *_POWERS):
        return YES
    made, given = node.meta["val"], node.all_input_nodes[0].meta["val"]
    if made.dtype.is_floating_point or (node.target in _PRODUCTS and given.dtype == torch.bool):
        return YES
    return Verdict.no(
        "wrong_results",
        "onnxruntime multiplies whole numbers as float64, which does not hold every one",
        "multiply floating-point numbers, by dtype=torch.float64 for example",
    )


def _divides_safely(node: torch.fx.Node, version: str) -> Verdict:
    if at_least(SAFE_DIVISION, version) or not divides_integers(node):
        return YES
    return Verdict.no(
        "library_version",
        f"a division of whole numbers by zero would end the process in onnxruntime {version}",
        f"install onnxruntime {SAFE_DIVISION} or newer",
    )
