"""Outputs of what PyTorch's own allocator has made: checked, and in memory of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from portrt.engines.base import fits
from portrt.errors import EngineError, brief


def own_outputs(
    what: str,
    results: Sequence[torch.Tensor],
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[torch.dtype],
    taken: set[int],
) -> list[torch.Tensor]:
    """Return results as contiguous tensors that share no memory with others.

    An operator must not return its inputs, or one tensor twice, and torch.compile relies on the
    strides of the fake kernel.

    Args:
        what: What made them, for messages.
        results: The results.
        shapes: Shape of each, as in the manifest.
        dtypes: Dtype of each.
        taken: Addresses of the storages of inputs and weights; those of the outputs are added.

    Raises:
        EngineError: A shape or a dtype is another.
    """
    found = [(tuple(result.shape), result.dtype) for result in results]
    wanted = list(zip(shapes, dtypes, strict=True))
    if len(found) != len(wanted) or not all(
        fits(shape, size) and dtype == kind
        for (shape, dtype), (size, kind) in zip(found, wanted, strict=True)
    ):
        raise EngineError(
            f"{what} gave {brief(found, 400)}",
            f"{brief(shapes, 400)} of {brief(dtypes, 400)}, as in its manifest",
            "compile the model again, and report it",
        )
    outputs: list[torch.Tensor] = []
    for result in results:
        address = result.untyped_storage().data_ptr()
        if address in taken or not result.is_contiguous():
            result = result.clone(memory_format=torch.contiguous_format)
        taken.add(result.untyped_storage().data_ptr())
        outputs.append(result)
    return outputs
