"""Weights that may be replaced after a model was converted: they stay as they are in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch

from portrt import torch_internals
from portrt.compiler.plan import Block

if TYPE_CHECKING:
    import onnx_ir

# Weights up to this size are copied into the model, where shape inference can read them.
SMALL_WEIGHT_BYTES = 128


def small_weights(block: Block, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the small floating-point weights of a block that may be replaced."""
    return [
        name
        for name in block.weights
        if name in block.changeable
        and tensors[name].is_floating_point()
        and tensors[name].nbytes <= SMALL_WEIGHT_BYTES
    ]


def id_of(value: onnx_ir.Value) -> int:
    """Return the id of the tensor that an initializer is made of."""
    return id(torch_internals.torch_tensor_of(value.const_value))


class DeduplicateOthers:
    """Pass that merges equal initializers, except weights that may differ later.

    Args:
        weights: Ids of these weights.
    """

    def __init__(self, weights: Collection[int]) -> None:
        self._weights = weights

    def __call__(self, model: onnx_ir.Model) -> None:
        """Run the pass on a model, in place."""
        import onnx_ir.passes.common as common

        found = model.graph.initializers
        kept = {name: value for name, value in found.items() if id_of(value) in self._weights}
        for name in kept:
            del found[name]
        common.DeduplicateInitializersPass()(model)
        found.update(kept)
