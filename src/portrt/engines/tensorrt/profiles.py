"""Chooses the optimization profile for the sizes of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch

from portrt.engines.tensorrt.engine import Binding, Sizes
from portrt.errors import OutOfProfileError

# (position in the call, name, binding) of each input.
Bounds = tuple[tuple[int, str, Binding], ...]


def profile_of(bounds: Bounds, count: int, given: Mapping[str, torch.Tensor]) -> int | None:
    """Find the first profile whose ranges include these inputs.

    Args:
        bounds: The inputs.
        count: Number of profiles.
        given: Binding -> tensor; shape tensors are in CPU memory.

    Returns:
        Its index, or None.
    """
    for index in range(count):
        if all(_fits(binding, index, given[name]) for _, name, binding in bounds):
            return index
    return None


def _fits(binding: Binding, profile: int, tensor: torch.Tensor) -> bool:
    if len(tensor.shape) != binding.rank:
        return False
    lower, upper = binding.profiles[profile]
    sizes = _sizes(binding, tensor)
    if binding.on_host:  # the library may report bounds of the first elements alone
        sizes = sizes[: len(lower)]
    # An input of fixed sizes may have no bounds.
    return not lower or _within(lower, sizes, upper)


def _sizes(binding: Binding, tensor: torch.Tensor) -> Sequence[int]:
    """Return what a profile bounds: the shape, or the values of a shape tensor."""
    return tensor.flatten().tolist() if binding.on_host else tuple(tensor.shape)


def _within(lower: Sizes, values: Sequence[int], upper: Sizes) -> bool:
    return len(values) == len(lower) and all(
        low <= value <= high for low, value, high in zip(lower, values, upper, strict=True)
    )


def refuse_sizes(
    block: str, bounds: Bounds, count: int, given: Mapping[str, torch.Tensor]
) -> NoReturn:
    """Raise OutOfProfileError with the sizes and the range of each profile."""
    lines = []
    for index in range(count):
        ranges = [
            f"{name} {list(binding.profiles[index][0])} to {list(binding.profiles[index][1])}"
            for _, name, binding in bounds
        ]
        lines.append(f"\n    profile {index}: {', '.join(ranges)}")
    found = ", ".join(f"{name} {list(_sizes(binding, given[name]))}" for _, name, binding in bounds)
    raise OutOfProfileError(
        f"no profile of the engine of {block} takes {found}",
        f"sizes within one of its {count} profiles:{''.join(lines)}",
        "use sizes of a profile, compile with wider ones, or let PyTorch run them: "
        "fallback='eager'",
    )
