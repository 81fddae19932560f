"""Private parts of shape inference: the size of what several masks pick."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

_INDEX = torch.ops.aten.index.Tensor
_MASKS = (torch.bool, torch.uint8)


@contextlib.contextmanager
def sizes_of_several_masks() -> Iterator[None]:
    """Let torch trace an index of masks among others, and of uint8 masks, in a context.

    Torch's own inference makes one symbol a mask, of which the result has one; that is an error. It
    has no uint8 masks at all.
    """
    from torch._subclasses.fake_impls import op_implementations_dict as table

    original: Any = table[_INDEX]

    def inferred(mode: Any, operator: Any, x: Any, indices: Any) -> Any:
        return original(mode, operator, x, _positions(mode, indices))

    table[_INDEX] = inferred
    try:
        yield
    finally:
        table[_INDEX] = original


def _positions(mode: Any, indices: Sequence[Any]) -> Sequence[Any]:
    """Return positions instead of masks: as many for each as the result has elements."""
    from torch.fx.experimental.symbolic_shapes import _constrain_range_for_size
    from torch.fx.experimental.symbolic_shapes import statically_known_true as is_true

    given = [index for index in indices if index is not None]
    masks = [index for index in given if index.dtype in _MASKS]
    is_usual = len(given) == 1 and masks and masks[0].dtype == torch.bool
    if not masks or is_usual or any(mask.dim() == 0 for mask in masks) or mode.shape_env is None:
        return indices
    others = [index.shape for index in given if index.dtype not in _MASKS]
    broadcast: Any = torch.broadcast_shapes  # without types
    shape = broadcast(*others) if others else ()
    size: Any = shape[-1] if shape else 1
    if is_true(size == 1):
        size = mode.shape_env.create_unbacked_symint()
        _constrain_range_for_size(size)
    found: list[Any] = []
    with mode:
        for index in indices:
            is_mask = index is not None and index.dtype in _MASKS
            found += (
                [torch.empty(size, dtype=torch.int64, device=index.device)] * index.dim()
                if is_mask
                else [index]
            )
    return found
