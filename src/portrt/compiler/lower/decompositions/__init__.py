"""Operator calls that portrt takes apart itself, because no translation of them is right.

A decomposition is a function with the operator's signature that calls other `aten` operators. It
returns NotImplemented for the calls that may stay whole, and is then not used. Each answers
something that torch.onnx or an engine gets wrong or refuses; tests/ops has a row for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from portrt.compiler.lower.decompositions import (
    arithmetic,
    convolution,
    copies,
    distance,
    embedding_bag,
    normalization,
    pooling,
    reduction,
    resize,
    scatter,
    special,
    spectral,
)

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **arithmetic.DECOMPOSITIONS,
    **convolution.DECOMPOSITIONS,
    **copies.DECOMPOSITIONS,
    **distance.DECOMPOSITIONS,
    **embedding_bag.DECOMPOSITIONS,
    **normalization.DECOMPOSITIONS,
    **pooling.DECOMPOSITIONS,
    **reduction.DECOMPOSITIONS,
    **resize.DECOMPOSITIONS,
    **scatter.DECOMPOSITIONS,
    **special.DECOMPOSITIONS,
    **spectral.DECOMPOSITIONS,
}

__all__ = ["DECOMPOSITIONS"]
