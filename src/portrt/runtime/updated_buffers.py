"""Buffers that a program updates, in programs that are one engine call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from portrt.engines.in_place import InPlaceShapes
from portrt.runtime.block import Run
from portrt.runtime.input_check import Shapes


def buffer_nodes(program: ExportedProgram) -> dict[str, str]:
    """Return buffer -> its placeholder, for the buffers that a program updates."""
    updated = set(program.graph_signature.buffers_to_mutate.values())
    specs = program.graph_signature.input_specs
    return {
        str(spec.target): spec.arg.name
        for spec in specs
        if spec.kind == InputKind.BUFFER and spec.target in updated
    }


def updates_of(
    program: ExportedProgram, inputs: Sequence[str], results: Sequence[int]
) -> dict[int, int] | None:
    """Return engine result -> the engine input that is replaced by it.

    Args:
        program: A program of one engine call.
        inputs: Names of the placeholders of the call's inputs.
        results: Which result of the call each output of the program is.

    Returns:
        None if an output is neither the caller's nor of a buffer that the call takes, or if a
        result is of several outputs.
    """
    placeholders = buffer_nodes(program)
    updates: dict[int, int] = {}
    given: set[int] = set()
    for spec, result in zip(program.graph_signature.output_specs, results, strict=True):
        if spec.kind == OutputKind.USER_OUTPUT:
            given.add(result)
            continue
        name = placeholders.get(str(spec.target))
        if spec.kind != OutputKind.BUFFER_MUTATION or name is None or inputs.count(name) != 1:
            return None
        if result in updates:
            return None
        updates[result] = inputs.index(name)
    return None if given & updates.keys() else updates


class Updating:
    """Runs a block, and gives buffers among its inputs their new numbers.

    Args:
        run: Runs the block.
        shapes: Shapes of its outputs.
        updates: Engine result -> the engine input that is replaced by it.
    """

    def __init__(self, run: Run, shapes: Shapes, updates: Mapping[int, int]) -> None:
        self._run = run
        self._in_place = InPlaceShapes(shapes, updates)
        self._updates = updates
        self._written = set(updates.values())

    def __call__(self, inputs: Sequence[torch.Tensor], shapes: Shapes) -> list[torch.Tensor]:
        results = self._run(inputs, self._in_place if self._may_write(inputs) else shapes)
        for result, place in self._updates.items():
            # Copies nothing where both are the same memory, but counts as a change of the buffer.
            inputs[place].copy_(results[result])
        return results

    def _may_write(self, inputs: Sequence[torch.Tensor]) -> bool:
        """Return whether no input shares memory with one that is written, and torch allows it."""
        ranges: list[tuple[int, int, bool]] = []
        for place, tensor in enumerate(inputs):
            written = place in self._written
            if written and (
                tensor.requires_grad
                or (tensor.is_inference() and not torch.is_inference_mode_enabled())
            ):
                return False
            if tensor.is_contiguous():
                start, size = tensor.data_ptr(), tensor.nbytes
            else:
                storage: Any = tensor.untyped_storage()
                start, size = storage.data_ptr(), storage.nbytes()
            if size:
                ranges.append((start, start + size, written))
        ranges.sort()
        read_end = written_end = 0
        for start, end, written in ranges:
            if start < written_end or (written and start < read_end):
                return False
            read_end = max(read_end, end)
            if written:
                written_end = max(written_end, end)
        return True
