"""The engines of a block: each backend has the whole block, or as much of it as it takes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from portrt.compiler.building.at_fault import (
    control_flow,
    nodes_named_by,
    operator_names,
    verdict_of,
)
from portrt.compiler.building.check import FirstRun, Sample
from portrt.compiler.building.engines import Build, Failure, engine_builder
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.options.settings import Settings
from portrt.compiler.parts.build import engine_in_parts
from portrt.compiler.parts.cut import Translated, translated_by
from portrt.compiler.parts.share import Share, require_whole, shares_of_plan
from portrt.compiler.plan import Block, Engine, Plan
from portrt.errors import BuildError, ConvertError
from portrt.verdict import YES, Verdict

logger = logging.getLogger(__name__)


@dataclass
class BlockEngines:
    """The engines of one block.

    Attributes:
        engines: The engines, in order of preference.
        failures: Backend and error, for tasks without an engine.
        failed_builds: Whether a build failed; else what is missing is refused by rule.
        refused_by_all: Nodes that no task takes after its build, with the reason: the program is
            to be planned again without them, and `engines` is empty.
    """

    engines: list[Engine] = field(default_factory=list)
    failures: list[tuple[str, Failure]] = field(default_factory=list)
    failed_builds: bool = False
    refused_by_all: Mapping[str, Verdict] = field(default_factory=dict)


def planned_shares(
    plan: Plan, settings: Settings, tasks: Sequence[EngineTask]
) -> dict[str, list[Share]]:
    """Return the share of each engine in each block, if no build fails.

    Raises:
        PartitionError: No engine would have all of a block although the settings require it.
    """
    if len(tasks) == 1:
        return {}
    shares = shares_of_plan(plan, tasks, translated_by(settings))
    if settings.require_full_compilation:
        require_whole(shares)
    return shares


def supported_by(
    tasks: Sequence[EngineTask], translated: Translated, *, every: bool = False
) -> Callable[[torch.fx.Node], Verdict]:
    """Return a function that returns whether any task's engines, or every, can hold a node."""

    def supports(node: torch.fx.Node) -> Verdict:
        verdicts = [task.supports(node, translated) for task in tasks]
        refused = [verdict for verdict in verdicts if not verdict]
        return _joined(refused) if refused and (every or len(refused) == len(tasks)) else YES

    return supports


def _joined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return a verdict with the reasons of several, each once."""
    reason = "; ".join(dict.fromkeys(verdict.reason for verdict in verdicts))
    remedy = "; ".join(dict.fromkeys(verdict.remedy for verdict in verdicts if verdict.remedy))
    return dataclasses.replace(verdicts[0], reason=reason, remedy=remedy)


def engines_of_block(
    tensors: Mapping[str, torch.Tensor],
    block: Block,
    image: torch.Tensor,
    tasks: Sequence[EngineTask],
    sample: Sample | None,
    runs: dict[tuple[str, int], FirstRun] | None = None,
) -> BlockEngines:
    """Build the engines of one block.

    A single task builds the whole block or fails. Of several, one that takes only some of the block
    gets an engine in parts: what another takes stays in one block.

    Args:
        tensors: Name -> weight of the program.
        block: Block to build engines of.
        image: The weights image of the program.
        tasks: The engines to build.
        sample: Inputs and outputs of the block in PyTorch; None leaves the engines unchecked.
        runs: Takes the engines that were opened, by block name and position.

    Raises:
        CheckError: The outputs of an engine differ from those of the block.
        BuildError: An engine could not be built although `require_engines` is set.
    """
    settings, module = tasks[0].settings, block.program.graph_module
    build = engine_builder(tensors, block, image, settings.translations)
    translated = translated_by(settings)
    several = len(tasks) > 1
    refused = [task.refusals(module, translated) if several else {} for task in tasks]
    opened: dict[int, FirstRun] = {}
    built, failures = _whole_engines(block, build, tasks, refused, sample, opened)
    found = BlockEngines(failed_builds=bool(failures))
    if several:
        for index, names in _at_fault(block, failures).items():
            refused[index] = dict.fromkeys(names, verdict_of([failures[index]]))
            tasks[index].refused.update(refused[index])
        common = set.intersection(*map(set, refused))
        if common:
            joined = {name: _joined([own[name] for own in refused]) for name in sorted(common)}
            return dataclasses.replace(found, refused_by_all=joined)
    for index, task in enumerate(tasks):
        made: Engine | Failure | None = built.get(index, failures.get(index))
        late = task.too_late() if built or found.engines else None
        if made is None and late is not None:
            made = late
        elif index not in built and refused[index]:
            try:
                keep = partial(opened.__setitem__, index)
                made = engine_in_parts(task, block, tensors, image, sample, translated, keep)
            except BuildError as err:
                made = made or err
        if isinstance(made, Engine):
            if runs is not None and index in opened:
                runs[block.name, len(found.engines)] = opened[index]
            found.engines.append(made)
            continue
        assert made is not None
        if task.settings.require_engines and index in failures:
            raise made
        found.failures.append((task.builder.name, made))
        logger.warning("no %s engine for %s: %s", task.builder.name, block.name, made)
    found.failed_builds |= any(task.refused for task in tasks)
    return found


def _whole_engines(
    block: Block,
    build: Build,
    tasks: Sequence[EngineTask],
    refused: Sequence[Mapping[str, Verdict]],
    sample: Sample | None,
    opened: dict[int, FirstRun],
) -> tuple[dict[int, Engine], dict[int, Failure]]:
    """Build the engines of tasks that refuse nothing; return them and the failures by index."""
    built: dict[int, Engine] = {}
    failures: dict[int, Failure] = {}
    for index, task in enumerate(tasks):
        if refused[index] or (built and task.too_late()):
            continue
        try:
            built[index] = build(task, sample, partial(opened.__setitem__, index))
        except (BuildError, ConvertError) as err:
            if task.settings.require_engines and len(tasks) == 1:
                raise
            failures[index] = err
            logger.info("no %s engine for all of %s: %s", task.builder.name, block.name, err)
    return built, failures


def engine_of_block(
    tensors: Mapping[str, torch.Tensor],
    block: Block,
    image: torch.Tensor,
    task: EngineTask,
    sample: Sample | None,
) -> Engine:
    """Build one engine of a block that has others: of all of it, or in parts.

    Args:
        tensors: Name -> weight of the program.
        block: Block to build the engine of.
        image: The weights image of the program.
        task: The engine to build.
        sample: Inputs and outputs of the block in PyTorch; None leaves the engine unchecked.

    Raises:
        CheckError: The outputs of the engine differ from those of the block.
        BuildError: No part of the block could be built.
        ConvertError: The block has no ONNX form at the opsets that the builder reads.
    """
    translated = translated_by(task.settings)
    if not task.refusals(block.program.graph_module, translated):
        try:
            build = engine_builder(tensors, block, image, task.settings.translations)
            return build(task, sample, lambda _: None)
        except (BuildError, ConvertError) as err:
            names = _at_fault(block, {0: err})
            if not names:
                raise
            logger.warning("no %s engine for all of %s: %s", task.builder.name, block.name, err)
            task.refused.update(dict.fromkeys(names[0], verdict_of([err])))
    return engine_in_parts(task, block, tensors, image, sample, translated)


def _at_fault(block: Block, failures: Mapping[int, Failure]) -> dict[int, set[str]]:
    """Return the nodes at fault in each failure: those that it names, or else any other does.

    Where none names a node, it is the block's control flow, which builders support least; where
    it has none, the result is empty.
    """
    names = operator_names(block)
    named = {index: nodes_named_by(failure, names) for index, failure in failures.items()}
    known = set[str]().union(*named.values()) or control_flow(block)
    return {index: found or known for index, found in named.items()} if known else {}
