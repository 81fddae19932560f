"""Decompositions of operator calls whose ONNX translation is wrong or missing.

A decomposition is a function with the operator's signature that calls other `aten` operators. It
returns NotImplemented for the calls that need no decomposition. Each works around something that
torch.onnx or an engine computes wrongly or refuses, named in its docstring; tests/ops has a row for
each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from portrt.compiler.lower.decompositions import (
    activations,
    arithmetic,
    convolution,
    copies,
    distance,
    division,
    embedding_bag,
    fused_attention,
    interpolation,
    logarithms,
    normalization,
    pooling,
    reduction,
    resize,
    running_extremes,
    scatter,
    signs,
    sizes,
    special,
    spectral,
)

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **activations.DECOMPOSITIONS,
    **arithmetic.DECOMPOSITIONS,
    **convolution.DECOMPOSITIONS,
    **copies.DECOMPOSITIONS,
    **distance.DECOMPOSITIONS,
    **division.DECOMPOSITIONS,
    **embedding_bag.DECOMPOSITIONS,
    **fused_attention.DECOMPOSITIONS,
    **interpolation.DECOMPOSITIONS,
    **logarithms.DECOMPOSITIONS,
    **normalization.DECOMPOSITIONS,
    **pooling.DECOMPOSITIONS,
    **reduction.DECOMPOSITIONS,
    **resize.DECOMPOSITIONS,
    **running_extremes.DECOMPOSITIONS,
    **scatter.DECOMPOSITIONS,
    **signs.DECOMPOSITIONS,
    **sizes.DECOMPOSITIONS,
    **special.DECOMPOSITIONS,
    **spectral.DECOMPOSITIONS,
}

__all__ = ["DECOMPOSITIONS"]
