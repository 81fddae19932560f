"""The operator that an engine computes wrongly: engines of a block's parts are compared."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from portrt.compiler.building.check import Sample, compare_engine, run_in_pytorch
from portrt.compiler.building.engines import build_input_of, unchecked_engine
from portrt.compiler.building.precision import lowered_precision
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.checking.captured import record_values
from portrt.compiler.checking.parts import call_alone, operator_of, result_nodes, with_results
from portrt.compiler.parts.cut import cut_block, translated_by
from portrt.compiler.plan import Block, Plan

logger = logging.getLogger(__name__)

# How many calls are tried alone.
_MAX_ALONE = 16


@dataclass(frozen=True)
class Suspect:
    """A call in a block.

    Attributes:
        node: The call.
        row: The comparison of its result.
        inputs: The tensors that it takes.
        backend: The backend whose engine differs.
    """

    node: torch.fx.Node
    row: Mapping[str, Any]
    inputs: Sequence[Any]
    backend: str


class EngineSearch:
    """Searches the blocks of a plan for calls that engines compute wrongly.

    Args:
        plan: The plan.
        image: The weights image.
        tasks: The engines that are built of each block.
    """

    def __init__(self, plan: Plan, image: torch.Tensor, tasks: Sequence[EngineTask]) -> None:
        self._plan, self._image, self._tasks = plan, image, tasks

    def suspect(self, block: Block, sample: Sample, backend: str = "") -> Suspect | None:
        """Return the first call whose result differs in an engine of a block, or None.

        Args:
            block: A block whose engine differs on the sample.
            sample: Inputs and outputs of the block.
            backend: Backend of that engine, or "" for any.
        """
        for task in self._tasks:
            if backend not in ("", task.builder.name):
                continue
            if lowered_precision(task.builder.name, block, task.settings) is not None:
                continue
            for part, own in self._in_engines(task, block, sample):
                found = self._suspect_of(task, part, own)
                if found is not None:
                    return found
        return None

    def _in_engines(
        self, task: EngineTask, block: Block, sample: Sample
    ) -> Sequence[tuple[Block, Sample]]:
        """Return what a task's engines have of a block: the block, or parts of it that run."""
        translated = translated_by(task.settings)
        if not task.refusals(block.program.graph_module, translated):
            return [(block, sample)]
        try:
            cut = cut_block(task, block, self._plan.tensors, translated)
            samples = run_in_pytorch(cut, self._arguments(block, sample)).samples
        except Exception as err:
            logger.info("no parts of %s to search: %s", block.name, err)
            return []
        return [(part, samples[part.name]) for part in cut.blocks if part.name in samples]

    def _arguments(self, block: Block, sample: Sample) -> list[torch.Tensor]:
        return [*sample.inputs, *(self._plan.tensors[name] for name in block.weights)]

    def _suspect_of(self, task: EngineTask, block: Block, sample: Sample) -> Suspect | None:
        arguments = self._arguments(block, sample)
        graph = block.program.graph
        placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
        values = {
            **dict(zip(placeholders, arguments, strict=True)),
            **record_values(block.program.graph_module, arguments),
        }
        names = result_nodes(block)
        results = Sample(sample.inputs, tuple(values[name] for name in names))
        rows = self._rows(task, with_results(block, names), results)
        if rows is None:
            return None
        differing = {
            operator_of(block, name): row
            for name, row in reversed(list(zip(names, rows, strict=True)))
            if not row["ok"]
        }
        ordered = [node for node in block.program.graph.nodes if node in differing]
        for node in ordered[:_MAX_ALONE]:
            row = self._row_alone(task, node, values)
            if row is not None:
                return _suspect(node, row, values, task)
        if ordered:  # none differs alone: it is the first in which rounding is not
            return _suspect(ordered[0], differing[ordered[0]], values, task)
        return self._suspect_alone(task, block, values)

    def _suspect_alone(
        self, task: EngineTask, block: Block, values: Mapping[str, Any]
    ) -> Suspect | None:
        """Try each kind of call: returning every result may keep an engine from fusing."""
        tried: set[Any] = set()
        for node in block.program.graph.nodes:
            if not isinstance(node.target, torch._ops.OpOverload) or node.target in tried:
                continue
            if len(tried) >= _MAX_ALONE:
                break
            tried.add(node.target)
            row = self._row_alone(task, node, values)
            if row is not None:
                return _suspect(node, row, values, task)
        return None

    def _row_alone(
        self, task: EngineTask, node: torch.fx.Node, values: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the comparison of one call in an engine of its own; None if it is right."""
        made = call_alone(node, values)
        rows = None if made is None else self._rows(task, *made)
        return next((row for row in rows or () if not row["ok"]), None)

    def _rows(
        self, task: EngineTask, block: Block, sample: Sample
    ) -> Sequence[Mapping[str, Any]] | None:
        """Build an engine, and return the rows of its comparison; None if there is none."""
        try:
            build_input = build_input_of(self._plan, block, self._image, self._tasks)
            engine, build_input = unchecked_engine(task, build_input, sample)
            check = compare_engine(block, engine, build_input.image, sample)
        except Exception as err:  # not every part of a block can be a block
            logger.info("no engine of %s to search: %s", block.name, err)
            return None
        rows: Sequence[Mapping[str, Any]] | None = check.get("outputs")
        return rows


def _suspect(
    node: torch.fx.Node, row: Mapping[str, Any], values: Mapping[str, Any], task: EngineTask
) -> Suspect:
    inputs = [values.get(source.name) for source in node.all_input_nodes]
    return Suspect(node, row, pytree.tree_leaves(inputs), task.builder.name)
