"""A weights image with different numbers, and otherwise the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from portrt.format.temp_file import scratch_file
from portrt.weights import WeightsImage, bytes_of

# Larger ones are mapped from a temporary file, as those that `compile` makes.
_LARGE_BYTES = 128 << 20


def replaced(image: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return a copy of an image with other tensors at the same places.

    Args:
        image: The image; not modified, because calls may be using it.
        tensors: Name in the image -> tensor of the same dtype and shape.
    """
    if image.numel() >= _LARGE_BYTES:
        mapped = scratch_file(image.numel(), _parts(image, tensors))
        if mapped is not None:
            return torch.frombuffer(mapped, dtype=torch.uint8)
    made = image.detach().cpu().clone()
    read = WeightsImage(image)
    for name, tensor in tensors.items():
        _, _, start, size = read.entry(name)
        made[start : start + size] = bytes_of(tensor)
    return made


def _parts(image: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """Yield the bytes from the first to the last, without the image in memory twice."""
    read = WeightsImage(image)
    places = sorted((read.entry(name)[2:], name) for name in tensors)
    end = 0
    for (start, size), name in places:
        yield image[end:start].numpy()
        yield bytes_of(tensors[name]).numpy()
        end = start + size
    yield image[end:].numpy()
