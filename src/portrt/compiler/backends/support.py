"""Dtype support of backends, node by node."""

from __future__ import annotations

import torch

from portrt.compiler.backends.quantized import is_quantized_conversion
from portrt.graphs import spectral
from portrt.graphs.quantized_dtypes import QUANTIZED
from portrt.verdict import YES, Verdict

# Real dtype that represents a complex tensor inside an engine.
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def tensors_of(node: torch.fx.Node) -> list[torch.Tensor]:
    """Return the fake tensors that a node takes and returns."""
    values = [node.meta.get("val"), *(source.meta.get("val") for source in node.all_input_nodes)]
    flat = [
        item
        for value in values
        for item in (value if isinstance(value, (list, tuple)) else [value])
    ]
    return [item for item in flat if isinstance(item, torch.Tensor)]


def supports_dtypes(node: torch.fx.Node, dtypes: frozenset[torch.dtype], name: str) -> Verdict:
    """Reject a node with a dtype that the backend lacks.

    The quantized input or output of a conversion is accepted, because it needs no int8 or float8
    arithmetic.

    Args:
        node: The node.
        dtypes: Dtypes that the backend supports.
        name: Name of the backend, for messages.
    """
    quantizes = isinstance(node.target, torch._ops.OpOverload) and (
        node.target.namespace == "quantized_decomposed"
    )
    passed: frozenset[torch.dtype] = frozenset()
    if quantizes:
        passed = frozenset({torch.int8, torch.float64})  # per-channel scales
    elif is_quantized_conversion(node):
        passed = QUANTIZED
    for tensor in tensors_of(node):
        if _REAL.get(tensor.dtype) in dtypes and spectral.is_inside(node):
            continue
        if tensor.dtype not in dtypes and tensor.dtype not in passed:
            dtype = str(tensor.dtype).removeprefix("torch.")
            remedy = f"use another dtype there, or leave {name} out of engines"
            return Verdict.no("unsupported_dtype", f"{name} has no {dtype}", remedy)
    return YES
