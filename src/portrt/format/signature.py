"""What a block takes and returns: names, dtypes and shapes. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from portrt.format.dimensions import DataDependentSize, Dimension


@dataclass(frozen=True)
class InputSpec:
    """One input of a block.

    Attributes:
        name: Of the input.
        dtype: torch's name of its dtype, without "torch.".
        shape: Each size is an integer, a Dimension, or a tree over earlier dimensions.
    """

    name: str
    dtype: str
    shape: tuple[Any, ...]

    def to_json(self) -> dict[str, Any]:
        """Its entry in a manifest."""
        return {"name": self.name, "dtype": self.dtype, "shape": _shape_entry(self.shape)}


@dataclass(frozen=True)
class OutputSpec:
    """One output of a block.

    Attributes:
        name: Of the output.
        dtype: torch's name of its dtype, without "torch.".
        shape: Each size is an integer, a tree over the inputs' dimensions, or a DataDependentSize.
    """

    name: str
    dtype: str
    shape: tuple[Any, ...]

    def to_json(self) -> dict[str, Any]:
        """Its entry in a manifest."""
        return {"name": self.name, "dtype": self.dtype, "shape": _shape_entry(self.shape)}


@dataclass(frozen=True)
class Signature:
    """What a block takes and returns.

    Attributes:
        name: Of the block.
        inputs: In call order.
        outputs: In order.
    """

    name: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]


def _shape_entry(shape: Sequence[Any]) -> list[Any]:
    sized = (Dimension, DataDependentSize)
    return [size.to_json() if isinstance(size, sized) else size for size in shape]
