"""The compiled program against the captured one, on the example inputs and on drawn ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch.export import ExportedProgram

from portrt.compiler.building.check import PlannedRun, run_block, run_in_pytorch, run_plan
from portrt.compiler.checking.budget import Budget
from portrt.compiler.checking.captured import (
    Results,
    example_inputs,
    is_random,
    named_results,
    run_captured,
)
from portrt.compiler.checking.draws import Draw, draws
from portrt.compiler.checking.fault import Fault
from portrt.compiler.checking.location import FaultLocation
from portrt.compiler.checking.opened import Variant
from portrt.compiler.checking.record import Record
from portrt.compiler.plan import Plan
from portrt.numerics.compare import compare
from portrt.numerics.judge import SHAKES, has_branches, is_excused
from portrt.numerics.precise_run import shaken

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """The model in PyTorch on its example inputs.

    Attributes:
        flat: The flat inputs.
        results: What it returns.
        seconds: How long it took.
    """

    flat: tuple[Any, ...]
    results: Results
    seconds: float


class ProgramCheck:
    """Comparison of one planned program with the captured one.

    Args:
        captured: The captured program.
        plan: The plan that was made of it.
        location: Finds the operator at fault.
    """

    def __init__(self, captured: ExportedProgram, plan: Plan, location: FaultLocation) -> None:
        self._captured, self._plan, self._location = captured, plan, location
        self.record = Record()

    @cached_property
    def example(self) -> Example | None:
        """The model's run on the example inputs; None if there is nothing to compare."""
        flat = example_inputs(self._captured)
        if flat is None or is_random(self._captured):
            return None
        try:
            started = time.perf_counter()
            results = run_captured(self._captured, flat)
            return Example(flat, results, time.perf_counter() - started)
        except Exception:
            logger.warning("the model fails on its inputs", exc_info=True)
            return None

    def fault_of_lowering(self, run: PlannedRun) -> Fault | None:
        """Compare the lowered program on the example inputs with the captured one.

        Args:
            run: The run of the plan in PyTorch on the example inputs.
        """
        if self.example is None or not run.outputs:
            return None
        flat, wanted = self.example.flat, self.example.results
        found = self._named(run.outputs)
        rows = self._rows(flat, wanted, found, "")
        return None if _agree(rows) else self._location.in_lowering(flat, rows)

    def fault(self, variants: Sequence[Variant], budget: Budget) -> Fault | None:
        """Compare the program with its engines, on the example inputs and on drawn ones.

        Args:
            variants: The engines to compare; with none, the lowered program is compared.
            budget: What the drawn inputs may cost.
        """
        if self.example is None:
            return None
        budget.begin()
        flat, wanted = self.example.flat, self.example.results
        before = budget.now()
        for variant in variants:
            try:
                found = self._compared(flat, wanted, variant, {})
            except Exception:  # the engines of the blocks did run on it, one by one
                logger.warning("the compiled program fails on the example inputs", exc_info=True)
                return None
            if found is not None:
                return found
        # What was run before, and is not again on these inputs.
        earlier = {id(it.first): it.first.seconds for each in variants for it in each.values()}
        cost = budget.now() - before + self.example.seconds + sum(earlier.values())
        return self._fault_on_draws(flat, variants or [{}], budget, cost)

    def _fault_on_draws(
        self, flat: Sequence[Any], variants: Sequence[Variant], budget: Budget, cost: float
    ) -> Fault | None:
        """Compare on drawn inputs; `cost` is that of an input of the example's size."""
        if not budget.allows(cost):
            return None
        for draw in draws(self._captured, flat):
            if not budget.allows(cost * draw.weight):
                logger.info("not drawn for lack of time: %s", draw.label)
                continue
            before = budget.now()
            found = self._fault_on(draw, variants)
            if found is not None:
                return found
            cost = max(budget.now() - before, 0.0) / max(draw.weight, 1.0)
        return None

    def _fault_on(self, draw: Draw, variants: Sequence[Variant]) -> Fault | None:
        try:
            wanted = run_captured(self._captured, draw.flat)
        except Exception as err:
            self.record.skipped += 1
            logger.debug("the model fails on %s: %s", draw.label, err)
            return None
        for variant in variants:
            try:
                found = self._compared(draw.flat, wanted, variant, draw.sizes)
            except Exception as err:
                self.record.failed += 1
                logger.info("the compiled program fails on %s: %s", draw.label, err)
                continue
            if found is not None:
                return found
        return None

    def _compared(
        self, flat: Sequence[Any], wanted: Results, variant: Variant, sizes: Mapping[str, int]
    ) -> Fault | None:
        """Run the program with engines on inputs, and compare it with the captured one."""
        arithmetic = "+".join(dict.fromkeys(opened.arithmetic for opened in variant.values()))
        found = self._named(run_plan(self._plan, flat, self._runner(variant)))
        rows = self._rows(flat, wanted, found, arithmetic)
        if _agree(rows):
            self.record.add(sizes, rows)
            return None
        again = run_captured(self._captured, flat)
        if not _agree([compare(name, again[name], wanted[name]) for name in wanted]):
            logger.info("not compared: the model gives other results each time")
            return None
        run = run_in_pytorch(self._plan, flat)
        lowered = self._rows(flat, wanted, self._named(run.outputs), "")
        if not _agree(lowered):
            return self._location.in_lowering(flat, lowered)
        fault = self._location.in_blocks(run, variant)
        if fault is None:
            worst = next(row for row in rows if not row["ok"])
            logger.info("no block is at fault for the difference in %s", worst["name"])
        return fault

    def _named(self, outputs: Sequence[Any]) -> Results:
        return named_results(self._plan.program.graph_signature.output_specs, outputs)

    def _runner(self, variant: Variant) -> Callable[[str, Sequence[Any]], Any]:
        blocks = {block.name: block for block in self._plan.blocks}

        def run(name: str, inputs: Sequence[Any]) -> Any:
            opened, block = variant.get(name), blocks[name]
            if opened is None:
                return run_block(block, self._plan.tensors, inputs)
            return opened.outputs(block.signature, inputs)

        return run

    def _rows(
        self, flat: Sequence[Any], wanted: Results, found: Results, arithmetic: str
    ) -> list[dict[str, Any]]:
        """Compare results; those that PyTorch itself is uncertain of are marked."""
        names = [name for name in wanted if name in found]
        rows = [compare(name, found[name], wanted[name], arithmetic) for name in names]
        if _agree(rows):
            return rows
        precise = self._other_run(flat, precise=True)
        others = [
            self._other_run([shaken(value, seed, keep_ties=False) for value in flat])
            for seed in range(0 if has_branches(self._captured.graph_module) else SHAKES)
        ]
        for name, row in zip(names, rows, strict=True):
            if not row["ok"] and is_excused(
                found[name],
                wanted[name],
                row["tolerance"],
                precise.get(name),
                [other[name] for other in others if name in other],
            ):
                row |= {"ok": True, "uncertain": True}
        return rows

    def _other_run(self, flat: Sequence[Any], *, precise: bool = False) -> Results:
        """Run the captured program for comparison; {} if it fails."""
        try:
            return run_captured(self._captured, flat, precise=precise)
        except Exception:
            return {}


def _agree(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(row["ok"] for row in rows)
