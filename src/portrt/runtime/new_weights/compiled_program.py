"""The ExportedProgram that `compile` and `load` return: torch's, with `update_weights`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch.export import ExportedProgram

if TYPE_CHECKING:
    from portrt.runtime.new_weights.update import WeightsUpdate


class CompiledProgram(ExportedProgram):
    """An ExportedProgram whose weights can be replaced."""

    def update_weights(
        self, state_dict: Mapping[str, Any], *, strict: bool = True, check: bool = True
    ) -> WeightsUpdate:
        """As `portrt.runtime.new_weights.update.update_weights`."""
        from portrt.runtime.new_weights.update import update_weights  # rarely needed

        return update_weights(self, state_dict, strict=strict, check=check)[1]


def with_update_weights(program: ExportedProgram) -> ExportedProgram:
    """Give a program that was just made `update_weights`, and return it."""
    if type(program) is ExportedProgram:
        program.__class__ = CompiledProgram
    return program
