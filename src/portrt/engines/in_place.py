"""Outputs that an engine may compute in the memory of an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from portrt.format.manifest import EngineSpec, Signature

if TYPE_CHECKING:
    from typing_extensions import Self


class InPlaceShapes(tuple[tuple[int, ...], ...]):
    """The shapes that `Session.run` takes, with inputs that the engine may write.

    A session that does not know this class runs as it does with other shapes. In one that does,
    outputs may be such inputs themselves.

    Attributes:
        updates: Index of an output -> index of the input that it replaces. Nothing else has the
            input's memory.
    """

    updates: Mapping[int, int]

    def __new__(cls, shapes: Sequence[tuple[int, ...]], updates: Mapping[int, int]) -> Self:
        made = super().__new__(cls, shapes)
        made.updates = updates
        return made

    def outputs(
        self, engine: EngineSpec, signature: Signature, inputs: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return memory for the outputs; empty if none can be computed in an input.

        Args:
            engine: The engine, whose `build` lists what it can compute so; older ones list nothing.
            signature: Its inputs and outputs.
            inputs: Inputs of the call.
        """
        listed = engine.build.get("updates_in_place")
        written = {
            output: inputs[place]
            for output, place in self.updates.items()
            if isinstance(listed, list)
            and [output, place] in listed
            and inputs[place].is_contiguous()
            and inputs[place].shape == self[output]
            and signature.inputs[place].dtype == signature.outputs[output].dtype
        }
        if not written or any(size < 0 for shape in self for size in shape):  # data-dependent
            return []
        return [
            written[index] if index in written else torch.empty(shape, dtype=_dtype(spec.dtype))
            for index, (shape, spec) in enumerate(zip(self, signature.outputs, strict=True))
        ]


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found
