"""Attempts: plan, build and check; what fails is planned again without the nodes at fault."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.building.at_fault import nodes_at_fault, operator_names, verdict_of
from portrt.compiler.building.check import FirstRun, PlannedRun, is_fast, sample_blocks
from portrt.compiler.building.engines import Failure
from portrt.compiler.building.precision import lowered_precision
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.checking.budget import Budget
from portrt.compiler.checking.engine_fault import EngineSearch
from portrt.compiler.checking.location import FaultLocation
from portrt.compiler.checking.opened import Opened, Variant
from portrt.compiler.checking.program import ProgramCheck
from portrt.compiler.left_out import Faults, LeftOut
from portrt.compiler.options.settings import Settings
from portrt.compiler.package.assemble import assemble
from portrt.compiler.package.state_record import image_of, record_without_image
from portrt.compiler.parts.engines import engines_of_block, planned_shares
from portrt.compiler.parts.share import Share, require_whole
from portrt.compiler.plan import Block, Engine, Plan
from portrt.compiler.reports.coverage import coverage, log_coverage, one_line, write_report
from portrt.errors import BuildError, CheckError
from portrt.format.compile_report import CompileReport, MissingEngine
from portrt.numerics.compare import arithmetic_of
from portrt.runtime.policy import stored_fallback
from portrt.verdict import Verdict

logger = logging.getLogger(__name__)

# Number of attempts that exclude single nodes after a failure; later ones exclude whole blocks.
_MAX_TRIES = 8


@dataclass(frozen=True)
class _Built:
    """The engines of one attempt, and what the next one is to leave out.

    Attributes:
        engines: Block name -> its engines.
        runs: (block name, position) -> the opened engine, and its run on the sample.
        missing: Engines that could not be built.
        failed: Nodes of blocks without an engine.
        incomplete: Blocks of which a build failed.
    """

    engines: dict[str, list[Engine]] = field(default_factory=dict)
    runs: dict[tuple[str, int], FirstRun] = field(default_factory=dict)
    missing: list[MissingEngine] = field(default_factory=list)
    failed: dict[str, Verdict] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)


def build_planned(
    captured: ExportedProgram,
    settings: Settings,
    tasks: Sequence[EngineTask],
    plan_without: Callable[[LeftOut], Plan],
    lower_without: Callable[[LeftOut], ExportedProgram],
    started: float,
) -> tuple[ExportedProgram, bool]:
    """Plan, build and check; after a failure leave the failing nodes to PyTorch and plan again.

    Args:
        captured: The captured program.
        settings: Settings of the compilation.
        tasks: The engines to build.
        plan_without: Makes the plan without what is left out.
        lower_without: Lowers the captured program as for that plan.
        started: When the compilation started, on `time.perf_counter`.

    Returns:
        The program, and whether it has every requested engine.

    Raises:
        CheckError: Results differ from PyTorch's, and `check` is "error", or nothing can be left
            out that would make them right.
        BuildError: No engine could be built although they were requested by name.
    """
    left_out = LeftOut()
    budget = Budget(settings.check_budget, started)
    whole: set[str] = set()
    for tries in itertools.count(1):
        if left_out.whole.keys() != whole:  # this lowering gives other names
            whole = set(left_out.whole)
            for task in tasks:
                task.refused.clear()
        plan = plan_without(left_out)
        report = coverage(plan)
        if tries == 1:
            log_coverage(_with_parts(report, plan, planned_shares(plan, settings, tasks)))
        image = image_of(plan, captured)
        run = sample_blocks(plan, captured) if _wants_samples(tasks) else PlannedRun({}, ())
        search = EngineSearch(plan, image, tasks)
        lower_again = partial(lower_without, left_out)
        location = FaultLocation(captured, plan, image, search, lower_again)
        check = ProgramCheck(captured, plan, location)
        checked = Faults(settings, left_out, tasks, whole_blocks=tries >= _MAX_TRIES)
        if settings.check != "off" and checked.found(check.fault_of_lowering(run)):
            continue
        built = _build_blocks(plan, image, tasks, run, location, checked)
        if built.failed or checked.any:
            left_out.nodes |= built.failed
            continue
        if settings.check == "off":
            break
        variants = _variants(plan, built, tasks)
        if not checked.found(check.fault(variants, budget), plan):
            _record(built, variants, check)
            break
    _order(plan, built, image, run, settings, started)
    if not plan.blocks:
        _report_nothing_compiled(plan, left_out, settings, tasks)
    policy = stored_fallback(settings.fallback)
    if settings.check == "first-open":
        policy["check"] = settings.check
    report = _with_parts(report, plan, _shares(plan, built, settings))
    report = dataclasses.replace(report, missing_engines=tuple(built.missing))
    if not plan.blocks:  # there is no manifest to store it
        write_report(report, settings.report)
    first = {"report": report.to_json(), **record_without_image(plan, captured)}
    program = assemble(plan, image if plan.tensors else None, built.engines, policy, first=first)
    _copy_shared_tensors(program, captured)
    return program, not built.incomplete and not left_out


def _order(
    plan: Plan,
    built: _Built,
    image: torch.Tensor,
    run: PlannedRun,
    settings: Settings,
    started: float,
) -> None:
    """Order the engines of each block by `optimize_for`, if it is set."""
    if settings.optimize_for is None:
        return
    from portrt.compiler import optimize

    budget_s = optimize.budget(time.perf_counter() - started) / max(len(plan.blocks), 1)
    for block in plan.blocks:
        sample = run.samples.get(block.name)
        device = optimize.device_of(sample.inputs if sample is not None else ())
        engines = built.engines[block.name]
        built.engines[block.name] = optimize.in_order(
            block, engines, image, settings, device, budget_s
        )


def _with_parts(
    report: CompileReport, plan: Plan, shares: Mapping[str, Sequence[Share]]
) -> CompileReport:
    """Return the report with what is in parts, if anything is."""
    in_parts = any(share.parts for found in shares.values() for share in found)
    return coverage(plan, shares=shares) if in_parts else report


def _shares(plan: Plan, built: _Built, settings: Settings) -> dict[str, list[Share]]:
    """Return the share of each engine in its block.

    Raises:
        PartitionError: No engine has all of a block although the settings require it.
    """
    shares = {
        block.name: [Share.of(block, engine) for engine in built.engines[block.name]]
        for block in plan.blocks
    }
    if settings.require_full_compilation:
        require_whole(shares)
    return shares


def _build_blocks(
    plan: Plan,
    image: torch.Tensor,
    tasks: Sequence[EngineTask],
    run: PlannedRun,
    location: FaultLocation,
    faults: Faults,
) -> _Built:
    built = _Built()
    for block in plan.blocks:
        try:
            made = engines_of_block(
                plan.tensors, block, image, tasks, run.samples.get(block.name), built.runs
            )
        except CheckError as err:
            if any(lowered_precision(t.builder.name, block, t.settings) for t in tasks):
                raise  # the precision of the options is too low
            fault = location.in_block(block, run, err)
            faults.found(fault, plan)
            built.engines[block.name] = []
            continue
        built.engines[block.name] = made.engines
        built.incomplete.extend([block.name] if made.failed_builds else [])
        built.missing.extend(
            MissingEngine(block.name, backend, one_line(failure.happened))
            for backend, failure in made.failures
        )
        if made.refused_by_all:
            _say_planned_again(block, made.refused_by_all)
            built.failed.update(made.refused_by_all)
        elif not made.engines:
            errors = [failure for _, failure in made.failures]
            whole = faults.whole_blocks
            built.failed.update(_nodes_to_exclude(block, errors, whole=whole))
    return built


def _variants(plan: Plan, built: _Built, tasks: Sequence[EngineTask]) -> list[Variant]:
    """Return which engines to compare together: the first of each block, the second, and so on."""
    found: list[Variant] = []
    for index in range(len(tasks)):
        variant: dict[str, Opened] = {}
        for block in plan.blocks:
            places = [
                place
                for place, engine in enumerate(built.engines[block.name])
                if (block.name, place) in built.runs and "autocast" not in engine.build
            ]
            if places:
                place = places[min(index, len(places) - 1)]
                engine = built.engines[block.name][place]
                variant[block.name] = Opened(
                    engine.backend,
                    arithmetic_of(engine.backend, engine.build),
                    built.runs[block.name, place],
                    is_fast(engine),
                )
        if variant and variant not in found:
            found.append(variant)
    return found


def _record(built: _Built, variants: Sequence[Variant], check: ProgramCheck) -> None:
    """Write what was compared to the entries of the engines that were."""
    if not check.record.compared:
        return
    compared = {id(opened.first) for variant in variants for opened in variant.values()}
    for name, engines in built.engines.items():
        for place, engine in enumerate(engines):
            if id(built.runs.get((name, place))) in compared:
                entry = {**(engine.check or {}), "program": check.record.to_json()}
                engines[place] = dataclasses.replace(engine, check=entry)


def _wants_samples(tasks: Sequence[EngineTask]) -> bool:
    return any(task.settings.check != "off" or task.settings.precision == "fp16" for task in tasks)


def _copy_shared_tensors(program: ExportedProgram, captured: ExportedProgram) -> None:
    """Copy tensors that the program shares with the model, such as buffers that calls modify."""
    pairs = (
        (program.state_dict, captured.state_dict),
        (program.constants, captured.constants),
    )
    seen: dict[int, Any] = {}  # tied tensors stay tied
    for own, theirs in pairs:
        for name, value in own.items():
            if name in theirs and isinstance(value, torch.Tensor):
                own[name] = copy.deepcopy(value, seen)


def _nodes_to_exclude(
    block: Block, failures: Sequence[Failure], *, whole: bool
) -> dict[str, Verdict]:
    """Return the nodes to exclude, with the reason: those that the failures name, or the block."""
    names = operator_names(block)
    verdict = verdict_of(failures)
    known = nodes_at_fault(block, failures)
    excluded = dict.fromkeys(known if known and not whole else names, verdict)
    _say_planned_again(block, excluded)
    return excluded


def _say_planned_again(block: Block, excluded: Mapping[str, Verdict]) -> None:
    names = operator_names(block)
    reasons = {f"{verdict.reason} (do: {verdict.remedy})" for verdict in excluded.values()}
    logger.warning(
        "%s of the %d operators of %s stay in PyTorch, and the rest is planned again: %s",
        "all" if excluded.keys() >= names else ", ".join(sorted(excluded)),
        len(names),
        block.name,
        "; ".join(sorted(reasons)),
    )


def _report_nothing_compiled(
    plan: Plan, left_out: LeftOut, settings: Settings, tasks: Sequence[EngineTask]
) -> None:
    """Log a warning, or raise BuildError if engines were requested by name and failed."""
    excluded = {**left_out.nodes, **left_out.whole}
    right = not any(it.code == "wrong_results" for it in excluded.values())
    if excluded and right and (settings.engines is not None or settings.require_full_compilation):
        reasons = dict.fromkeys(f"{it.reason} (do: {it.remedy})" for it in excluded.values())
        raise BuildError(
            "no engine of any block could be built:" + "".join(f"\n    {r}" for r in reasons),
            f"an engine by {' or '.join(task.builder.name for task in tasks)}",
            "name the operators in torch_executed_ops, or leave engines out to run in PyTorch",
        )
    if plan.left_out:
        logger.warning("no node of the model is in an engine; the whole model runs in PyTorch")
    else:
        logger.warning("nothing is left for an engine: the model returns constants, or its inputs")
