"""Signature of a block: names, dtypes and shapes of inputs and outputs. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from portrt.format.dimensions import DataDependentSize, Dimension


@dataclass(frozen=True)
class InputSpec:
    """One input of a block.

    Attributes:
        name: Name of the input.
        dtype: torch's name of its dtype, without "torch.".
        shape: Sizes; each is an integer, a Dimension, or an expression over earlier dimensions.
    """

    name: str
    dtype: str
    shape: tuple[Any, ...]

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        return {"name": self.name, "dtype": self.dtype, "shape": _shape_entry(self.shape)}


@dataclass(frozen=True)
class OutputSpec:
    """One output of a block.

    Attributes:
        name: Name of the output.
        dtype: torch's name of its dtype, without "torch.".
        shape: Sizes; each is an integer, an expression over the inputs' dimensions, or a
            DataDependentSize.
    """

    name: str
    dtype: str
    shape: tuple[Any, ...]

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        return {"name": self.name, "dtype": self.dtype, "shape": _shape_entry(self.shape)}


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a block.

    Attributes:
        name: Name of the block.
        inputs: Inputs in call order.
        outputs: Outputs in order.
    """

    name: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]


def _shape_entry(shape: Sequence[Any]) -> list[Any]:
    sized = (Dimension, DataDependentSize)
    return [size.to_json() if isinstance(size, sized) else size for size in shape]
