"""Where a difference comes from: the lowering, or an operator of a block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.building.at_fault import control_flow, operator_names
from portrt.compiler.building.check import PlannedRun, compare_block, extremes_take_nan
from portrt.compiler.checking.engine_fault import EngineSearch, Suspect
from portrt.compiler.checking.fault import Fault, described, difference, tolerance
from portrt.compiler.checking.lowered_fault import fault_in_lowering
from portrt.compiler.checking.opened import Variant
from portrt.compiler.plan import Block, Plan
from portrt.errors import CheckError

logger = logging.getLogger(__name__)


class FaultLocation:
    """Finds the operators at fault in one planned program.

    Args:
        captured: The captured program.
        plan: The plan that was made of it.
        image: The weights image of the plan.
        search: Searches blocks for the call at fault.
        lower_again: Returns the captured program lowered as it was for the plan, uncut.
    """

    def __init__(
        self,
        captured: ExportedProgram,
        plan: Plan,
        image: torch.Tensor,
        search: EngineSearch,
        lower_again: Callable[[], ExportedProgram],
    ) -> None:
        self._captured, self._plan, self._image = captured, plan, image
        self._search, self._lower_again = search, lower_again

    def in_lowering(self, flat: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> Fault:
        """Return the call that is decomposed wrongly.

        Args:
            flat: Flat inputs on which the lowered program differs from the captured one.
            rows: The comparison of the results.
        """
        found = fault_in_lowering(self._captured, self._lower_again(), flat)
        if found is not None:
            return found
        row = next(row for row in rows if not row["ok"])
        return Fault(
            f"the lowered model differs from PyTorch in {row['name']}: {difference(row)}",
            tolerance(row),
        )

    def in_blocks(self, run: PlannedRun, variant: Variant) -> Fault | None:
        """Return the operator at fault in the first block that differs; None if none does.

        Args:
            run: The run of the plan in PyTorch on the inputs.
            variant: The engines.
        """
        for block in self._plan.blocks:
            opened, sample = variant.get(block.name), run.samples.get(block.name)
            if opened is None or sample is None:
                continue
            outputs = opened.session.run(
                sample.inputs, [tuple(output.shape) for output in sample.outputs]
            )
            found = compare_block(block, self._image, sample, outputs, opened.arithmetic)
            if all(row["ok"] for row in found):
                continue
            if opened.fast and extremes_take_nan(block, self._image, sample):
                logger.info("not compared: NaN in a maximum of %s", block.name)
                continue
            suspect = self._search.suspect(block, sample, opened.backend)
            return self._in_block(block, suspect, found, opened.backend)
        return None

    def in_block(self, block: Block, run: PlannedRun, error: CheckError) -> Fault:
        """Return the operator at fault in a block whose engine differs on the example inputs.

        Args:
            block: The block.
            run: The run of the plan in PyTorch on the example inputs.
            error: What was found.
        """
        sample = run.samples[block.name]
        suspect = self._search.suspect(block, sample, error.backend)
        if suspect is None:  # in a branch that the sample does not take, or a fusion
            nodes = frozenset(control_flow(block) or operator_names(block))
            return Fault(error.happened, error.expected, nodes=nodes, backend=error.backend)
        found = self._in_block(block, suspect, [suspect.row], suspect.backend)
        return replace(
            found, happened=f"{error.happened}, first in {found.happened}", expected=error.expected
        )

    def _in_block(
        self,
        block: Block,
        suspect: Suspect | None,
        rows: Sequence[Mapping[str, Any]],
        backend: str,
    ) -> Fault:
        if suspect is None:
            row = next(row for row in rows if not row["ok"])
            return Fault(
                f"the {backend} engine of {block.name} differs from PyTorch in output "
                f"{row['name']!r}: {difference(row)}",
                tolerance(row),
                nodes=frozenset(operator_names(block)),
                backend=backend,
            )
        node = next(
            (node for node in self._lower_again().graph.nodes if node.name == suspect.node.name),
            suspect.node,  # of a user pass
        )
        return Fault(
            f"{described(node, suspect.inputs)} differs from PyTorch in the {suspect.backend} "
            f"engine of {block.name}: {difference(suspect.row)}",
            tolerance(suspect.row),
            nodes=frozenset([suspect.node.name]),
            backend=suspect.backend,
        )
