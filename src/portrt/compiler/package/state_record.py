"""Record of the model's state dict in the weights image: where each of its tensors went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.plan import Plan
from portrt.runtime.new_weights.changes import digest_of
from portrt.runtime.new_weights.record import FIELD, RECORD, Place, to_json, to_tensor
from portrt.weights import image_from_tensors


def image_of(plan: Plan, captured: ExportedProgram) -> torch.Tensor:
    """Make the weights image of a plan, with the record if it has weights.

    Args:
        plan: The plan.
        captured: The captured program, whose state dict is the model's.
    """
    if not plan.tensors:
        return image_from_tensors({})
    return image_from_tensors({**plan.tensors, RECORD: to_tensor(_places(plan, captured))})


def record_without_image(plan: Plan, captured: ExportedProgram) -> dict[str, Any]:
    """Return the record as a field of a manifest, for a program whose blocks have no weights."""
    return {} if plan.tensors else {FIELD: to_json(_places(plan, captured))}


def _places(plan: Plan, captured: ExportedProgram) -> dict[str, Place]:
    every = {**plan.program.constants, **plan.program.state_dict}
    stored, held = _names(plan.tensors), _names(every)
    folded = {_identity(name, every[name]) for name in plan.folded if name in every}
    first: dict[Any, str] = {}
    found = {}
    for name, tensor in captured.state_dict.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        key = _identity(name, tensor)
        found[name] = Place(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            tensors=tuple(stored.get(key, ())),
            state=tuple(held.get(key, ())),
            tied=first.setdefault(key, name),
            folded=digest_of(tensor) if key in folded else "",
        )
    return found


def _names(tensors: Mapping[str, Any]) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            found.setdefault(_identity(name, tensor), []).append(name)
    return found


def _identity(name: str, tensor: torch.Tensor) -> Any:
    """Return what names of one tensor have in common; the name where it has no memory."""
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # of a subclass without memory of its own
        return name
    if not address or not tensor.numel():
        return name
    return address, tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride()
