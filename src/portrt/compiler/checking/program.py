"""The compiled program against the captured one, on the example inputs and on drawn ones."""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.building.check import (
    FirstRun,
    PlannedRun,
    compare_block,
    extremes_take_nan,
    run_block,
    run_in_pytorch,
    run_plan,
)
from portrt.compiler.checking.budget import Budget
from portrt.compiler.checking.captured import (
    Results,
    example_inputs,
    is_random,
    named_results,
    run_captured,
)
from portrt.compiler.checking.draws import Draw, draws
from portrt.compiler.checking.engine_fault import EngineSearch, Suspect
from portrt.compiler.checking.fault import Fault, described, difference, tolerance
from portrt.compiler.checking.lowered_fault import fault_in_lowering
from portrt.compiler.plan import Block, Plan
from portrt.engines.base import Session
from portrt.errors import CheckError
from portrt.format.signature import Signature
from portrt.graphs import nested
from portrt.numerics.compare import compare
from portrt.numerics.judge import SHAKES, has_branches, is_excused
from portrt.numerics.precise_run import shaken
from portrt.runtime.input_check import output_shapes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An engine that was opened.

    Attributes:
        arithmetic: What it computes in.
        first: Its run on the sample.
        fast: Whether it was built with `numerics="fast"`.
    """

    arithmetic: str
    first: FirstRun
    fast: bool = False

    @property
    def session(self) -> Session:
        return self.first.session

    def outputs(self, signature: Signature, inputs: Sequence[Any]) -> Sequence[torch.Tensor]:
        """Return the outputs; for the tensors of the first run those that it gave."""
        seen = self.first.inputs
        if len(seen) == len(inputs) and all(map(operator.is_, seen, inputs)):
            return self.first.outputs
        return self.session.run(inputs, output_shapes(signature, inputs))


# Block name -> the engine that runs it; other blocks run in PyTorch.
Variant = Mapping[str, Opened]


@dataclass
class Record:
    """What was compared, for the manifest.

    Attributes:
        compared: Number of inputs, the example's included.
        skipped: Number of drawn inputs on which the model itself fails.
        failed: Number of drawn inputs on which an engine fails.
        sizes: Name of a dynamic dimension -> the sizes that were compared.
        worst: Largest difference, relative to the largest number of the output.
    """

    compared: int = 0
    skipped: int = 0
    failed: int = 0
    sizes: dict[str, set[int]] = field(default_factory=dict)
    worst: float = 0.0

    def add(self, sizes: Mapping[str, int], rows: Sequence[Mapping[str, Any]]) -> None:
        """Record one comparison."""
        self.compared += 1
        for name, size in sizes.items():
            self.sizes.setdefault(name, set()).add(size)
        found = [row["max_rel"] for row in rows if not row.get("uncertain")]
        self.worst = max([self.worst, *(it for it in found if isinstance(it, float))])

    def to_json(self) -> dict[str, Any]:
        """Return the field `program` of `check`."""
        return {
            "compared": self.compared,
            "skipped": self.skipped,
            "failed": self.failed,
            "sizes": {name: sorted(sizes) for name, sizes in self.sizes.items()},
            "max_rel": self.worst,
        }


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
        return None if _agree(rows) else self._lowering(flat, rows)

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
        return self._located(flat, wanted, variant, rows)

    def _located(
        self,
        flat: Sequence[Any],
        wanted: Results,
        variant: Variant,
        rows: Sequence[Mapping[str, Any]],
    ) -> Fault | None:
        """Return what is at fault for a difference: the lowering, or an operator of a block."""
        run = run_in_pytorch(self._plan, flat)
        lowered = self._rows(flat, wanted, self._named(run.outputs), "")
        if not _agree(lowered):
            return self._lowering(flat, lowered)
        for block in self._plan.blocks:
            opened, sample = variant.get(block.name), run.samples.get(block.name)
            if opened is None or sample is None:
                continue
            outputs = opened.session.run(
                sample.inputs, [tuple(output.shape) for output in sample.outputs]
            )
            found = compare_block(block, self._image, sample, outputs, opened.arithmetic)
            if not _agree(found):
                if opened.fast and extremes_take_nan(block, self._image, sample):
                    logger.info("not compared: NaN in a maximum of %s", block.name)
                    return None
                return self._in_block(block, self._search.suspect(block, sample), found)
        worst = next(row for row in rows if not row["ok"])
        logger.info("no block is at fault for the difference in %s: it is rounding", worst["name"])
        return None

    def fault_of_block(self, block: Block, run: PlannedRun, error: CheckError) -> Fault:
        """Return the operator at fault in a block whose engine differs on the example inputs.

        Args:
            block: The block.
            run: The run of the plan in PyTorch on the example inputs.
            error: What was found.
        """
        sample = run.samples[block.name]
        suspect = self._search.suspect(block, sample)
        if suspect is None:  # in a branch that the sample does not take, or a fusion
            nodes = control_flow_calls(block) or operator_names(block)
            return Fault(error.happened, error.expected, nodes=nodes)
        found = self._in_block(block, suspect, [suspect.row])
        return replace(
            found, happened=f"{error.happened}, first in {found.happened}", expected=error.expected
        )

    def _in_block(
        self, block: Block, suspect: Suspect | None, rows: Sequence[Mapping[str, Any]]
    ) -> Fault:
        if suspect is None:
            row = next(row for row in rows if not row["ok"])
            return Fault(
                f"an engine of {block.name} differs from PyTorch in output {row['name']!r}: "
                f"{difference(row)}",
                tolerance(row),
                nodes=operator_names(block),
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
        )

    def _lowering(self, flat: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> Fault:
        found = fault_in_lowering(self._captured, self._lower_again(), flat)
        if found is not None:
            return found
        row = next(row for row in rows if not row["ok"])
        return Fault(
            f"the lowered model differs from PyTorch in {row['name']}: {difference(row)}",
            tolerance(row),
        )

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


def operator_names(block: Block) -> frozenset[str]:
    nodes = nested.all_nodes(block.program.graph_module)
    return frozenset(node.name for node in nodes if nested.is_operator(node))


def control_flow_calls(block: Block) -> frozenset[str]:
    """Return the calls of a block that have branches."""
    return frozenset(
        node.name
        for node in block.program.graph.nodes
        if isinstance(node.target, torch._ops.HigherOrderOperator)
    )
