"""Checks the inputs and names that the user gives for a plan's bindings."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from portrt.compiler.inputs import Input
from portrt.errors import SettingsError
from portrt.format.json_fields import MAX_TEXT_CHARS


def named_inputs(inputs: Any, names: Sequence[str] | None) -> dict[str, torch.Tensor | Input]:
    """Map each binding name to its example or `Input`, in call order.

    Args:
        inputs: A mapping; or a list, if there are names.
        names: Names of the source's arguments, or None without a source.

    Raises:
        SettingsError: The inputs have another type, or their number is not that of the names.
    """
    if isinstance(inputs, Mapping):
        found = dict(inputs)
    elif isinstance(inputs, (list, tuple)) and names is not None:
        if len(inputs) != len(names):
            raise SettingsError(
                f"{len(inputs)} inputs were given for a source with the arguments "
                f"{', '.join(names)}",
                "one for each argument",
                "give all of them, in order, or a mapping of the plan's bindings",
            )
        found = dict(zip(names, inputs, strict=True))
    else:
        raise SettingsError(
            f"inputs is a {type(inputs).__qualname__}"
            + ("" if names is not None else ", and there is no source to name them"),
            "a mapping from the plan's binding names to tensors or portrt.Input, in call order",
            "write inputs={'x': portrt.Input(...)}",
        )
    for name, value in found.items():
        if not isinstance(value, (torch.Tensor, Input)):
            raise SettingsError(
                f"input {name!r} is a {type(value).__module__}.{type(value).__qualname__}",
                "a tensor or a portrt.Input",
                "give an example, or the shapes that the plan accepts",
            )
    if not found:
        raise SettingsError("inputs is empty", "at least one binding", "name the plan's inputs")
    check_names(found, "input")
    return found


def check_names(names: Iterable[Any], kind: str) -> list[str]:
    """Check names and return them as a list.

    Raises:
        SettingsError: A name is no text that a manifest can hold, or is repeated.
    """
    found = [names] if isinstance(names, str) else list(names)
    for name in found:
        if (
            not isinstance(name, str)
            or not name.isprintable()
            or not 0 < len(name) <= MAX_TEXT_CHARS
        ):
            raise SettingsError(
                f"an {kind} is named {name!r:.80}",
                f"printable text of up to {MAX_TEXT_CHARS} characters",
                "give the binding's name, as TensorRT has it",
            )
    if len(set(found)) != len(found):
        raise SettingsError(
            f"the {kind} names {found} are not distinct", "one name for one binding", "correct them"
        )
    return found


def argument_names(names: Iterable[str]) -> list[str]:
    """Make distinct Python names from binding names: `input_1` for "input.1"."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not plain.isidentifier() or keyword.iskeyword(plain) or plain == "self":
            plain = f"input_{plain}"
        while plain in found:
            plain += "_"
        found.append(plain)
    return found
