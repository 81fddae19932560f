"""The record of a model's state dict, in the weights image: where each of its tensors is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from portrt.format.json_fields import strict_json
from portrt.weights import WeightsImage

# A name that no parameter or buffer has: theirs have no slash.
RECORD = "portrt/state_dict.json"
# Field of the first manifest of a program without an image.
FIELD = "state_dict"


@dataclass(frozen=True)
class Place:
    """Where a tensor of the model's state dict is.

    Attributes:
        dtype: Its dtype, without "torch.".
        shape: Its shape.
        tensors: Names of it in the weights image.
        state: Names of it among the program's parameters, buffers and constants.
        tied: Name of the first of the tensors that have the same memory; it may be its own.
        folded: SHA-256 of its bytes, if operators or sizes of the program follow from them.
    """

    dtype: str
    shape: tuple[int, ...]
    tensors: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    tied: str = ""
    folded: str = ""


def to_json(places: Mapping[str, Place]) -> dict[str, Any]:
    """Return the places of all names as plain values."""
    entries = {
        name: [
            place.dtype,
            list(place.shape),
            list(place.tensors),
            list(place.state),
            place.tied,
            place.folded,
        ]
        for name, place in places.items()
    }
    return {"format": 1, "places": entries}


def to_tensor(places: Mapping[str, Place]) -> torch.Tensor:
    """Write the places of all names as JSON in a 1-D uint8 tensor."""
    text = json.dumps(to_json(places), separators=(",", ":"))
    text += " " * (-len(text) % 8)  # the image ends as other tensors do
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def read(image: WeightsImage | None) -> dict[str, Place] | None:
    """Read the record of an image; None where it has none, or one of another form."""
    if image is None or RECORD not in image:
        return None
    try:
        return from_json(strict_json(image.tensor(RECORD).numpy().tobytes().decode()))
    except (ValueError, RecursionError):
        return None


def from_json(found: Any) -> dict[str, Place] | None:
    """Read plain values of a file; None where they are no record of this form."""
    try:
        if found["format"] != 1:
            return None
        return {name: _place(*entry) for name, entry in found["places"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _place(dtype: Any, shape: Any, tensors: Any, state: Any, tied: Any, folded: Any) -> Place:
    texts = (dtype, tied, folded, *tensors, *state)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name that is no text")
    return Place(
        dtype, tuple(int(size) for size in shape), tuple(tensors), tuple(state), tied, folded
    )


def changeable(image: WeightsImage | None, names: Iterable[str]) -> frozenset[str]:
    """Return which of these tensors of an image are in the model's state dict."""
    places = read(image) or {}
    known = {tensor for place in places.values() for tensor in place.tensors}
    return frozenset(known.intersection(names))


def by_names(image: WeightsImage | None, state: Mapping[str, torch.Tensor]) -> dict[str, Place]:
    """Return the places that follow from names alone, for a program without a record."""
    names = [] if image is None else [name for name in image.names() if name != RECORD]
    found = {}
    for name in names:
        assert image is not None
        dtype, shape, _, _ = image.entry(name)
        found[name] = Place(str(dtype).removeprefix("torch."), shape, (name,), (name,), name)
    for name, tensor in state.items():
        if name not in found:
            dtype = tensor.dtype
            shape = tuple(tensor.shape)
            found[name] = Place(str(dtype).removeprefix("torch."), shape, (), (name,), name)
    return found
