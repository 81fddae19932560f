"""What a state dict changes in a program: checked as a whole before anything is changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from portrt.errors import InputError
from portrt.runtime.new_weights.record import Place
from portrt.weights import WeightsImage, bytes_of

_LISTED = 8
_REMEDY = "give the state dict of the model that was compiled, or compile the new model"


@dataclass(frozen=True)
class Changes:
    """Tensors with different numbers than the program has.

    Attributes:
        names: Their names in the state dict.
        tensors: Name in the weights image -> tensor.
        state: Name of a parameter, buffer or constant of the program -> tensor.
    """

    names: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, torch.Tensor]


def changes_of(
    state_dict: Mapping[str, Any],
    places: Mapping[str, Place],
    image: WeightsImage | None,
    state: Mapping[str, torch.Tensor],
    *,
    strict: bool,
) -> Changes:
    """Compare a state dict with a program.

    Args:
        state_dict: Name in the model -> tensor, on any device.
        places: Name in the model -> where the program has it.
        image: The weights image, if the program has one.
        state: Parameters, buffers and constants of the program.
        strict: Whether each name must be given, and no other.

    Raises:
        InputError: Names are missing or unexpected, or a tensor has another shape or dtype, or is
            one that operators of the program follow from.
    """
    faults = [*_name_faults(state_dict, places)] if strict else []
    given = {name: tensor for name, tensor in state_dict.items() if name in places}
    faults += [fault for name in given if (fault := _fault(name, given[name], places[name]))]
    if not faults:
        faults = _tied_faults(given, places)
    if faults:
        more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise InputError(
            f"the new weights do not fit: {'; '.join(faults[:_LISTED])}{more}",
            "the names, shapes and dtypes of the model that was compiled",
            _REMEDY,
        )
    _refuse_folded(given, places)
    names: list[str] = []
    tensors: dict[str, torch.Tensor] = {}
    others: dict[str, torch.Tensor] = {}
    for name, tensor in given.items():
        place = places[name]
        stored = {
            inner: tensor
            for inner in place.tensors
            if image is not None and inner in image and differ(image.tensor(inner), tensor)
        }
        held = {
            inner: tensor
            for inner in place.state
            if inner in state and differ(state[inner], tensor)
        }
        tensors |= stored
        others |= held
        if stored or held:
            names.append(name)
    return Changes(tuple(names), tensors, others)


def differ(old: torch.Tensor, new: torch.Tensor) -> bool:
    """Return whether tensors of one shape and dtype differ in any bit."""
    return not torch.equal(bytes_of(old), bytes_of(new))


def digest_of(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of the elements in hexadecimal."""
    data: Any = bytes_of(tensor).numpy()
    return hashlib.sha256(data).hexdigest()


def _name_faults(given: Iterable[str], places: Mapping[str, Place]) -> Iterable[str]:
    names = set(given)
    tied = {places[name].tied or name for name in names if name in places}
    missing = [
        name for name, place in places.items() if name not in names and place.tied not in tied
    ]
    unexpected = sorted(names - places.keys())
    if missing:
        yield f"missing are {_list(missing)}"
    if unexpected:
        yield f"unexpected are {_list(unexpected)}"


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"{name!r:.100}" for name in names[:_LISTED]) + more


def _fault(name: str, tensor: Any, place: Place) -> str:
    if not isinstance(tensor, torch.Tensor) or tensor.is_meta or tensor.layout != torch.strided:
        kind = getattr(tensor, "layout", type(tensor).__name__)
        return f"{name!r} is {'on the meta device' if getattr(tensor, 'is_meta', 0) else kind}"
    if type(tensor.detach()) is not torch.Tensor:
        return f"{name!r} is a {type(tensor).__name__}"
    if tuple(tensor.shape) != place.shape:
        return f"{name!r} has the shape {tuple(tensor.shape)}, not {place.shape}"
    dtype = str(tensor.dtype).removeprefix("torch.")
    return "" if dtype == place.dtype else f"{name!r} is {dtype}, not {place.dtype}"


def _tied_faults(given: Mapping[str, torch.Tensor], places: Mapping[str, Place]) -> list[str]:
    """Find names of one tensor that are given different numbers."""
    first: dict[str, str] = {}
    found = []
    for name in given:
        other = first.setdefault(places[name].tied or name, name)
        if other != name and differ(given[other], given[name]):
            found.append(f"{other!r} and {name!r} are one tensor of the model, and differ")
    return found


def _refuse_folded(given: Mapping[str, torch.Tensor], places: Mapping[str, Place]) -> None:
    """Raise InputError for different numbers of a tensor that operators or sizes follow from."""
    for name, tensor in given.items():
        wanted = places[name].folded
        if wanted and digest_of(tensor) != wanted:
            raise InputError(
                f"{name!r} has different numbers, and compile made operators, sizes or constants "
                "of those that it had",
                "the numbers that it was compiled with",
                "compile the model again, or once with immutable_weights=False",
            )
