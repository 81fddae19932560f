"""Compilation: capture -> lower -> partition -> convert -> build -> package."""

from __future__ import annotations

import copy
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.compiler.building.check import sample_blocks
from portrt.compiler.building.engines import engines_of_block
from portrt.compiler.building.tasks import EngineTask, tasks_for
from portrt.compiler.capture import capture
from portrt.compiler.convert import translation
from portrt.compiler.convert.translations import resolved
from portrt.compiler.lower import lower
from portrt.compiler.options.backend_options import built_in_owners
from portrt.compiler.options.fields import docstring_section, options_of
from portrt.compiler.options.settings import Settings
from portrt.compiler.package.assemble import assemble
from portrt.compiler.partition import partition
from portrt.compiler.plan import Block, Engine, Plan
from portrt.compiler.program_cache import build_program
from portrt.compiler.reports.coverage import coverage, log_coverage, one_line, write_report
from portrt.compiler.reports.unmatched_operators import warn_of_unmatched_operators
from portrt.compiler.sizes.tuning import sizes_to_tune_for
from portrt.errors import BuildError, ConvertError, SettingsError
from portrt.format.compile_report import MissingEngine, report_of_manifest
from portrt.format.manifest import decode, parse
from portrt.graphs import nested
from portrt.graphs.module_path import ModulePath, warn_of_unmatched_patterns
from portrt.graphs.node_names import nodes_named
from portrt.graphs.symbols import ProfileRanges
from portrt.runtime.calls import manifests_of
from portrt.runtime.module import module_of
from portrt.runtime.trust import mark_trusted
from portrt.verdict import YES, Verdict
from portrt.weights import image_from_tensors

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from portrt.compiler.options.compile_options import CompileOptions

logger = logging.getLogger(__name__)

_IRS = ("default", "dynamo")

# Number of attempts that exclude single nodes after a failure; later ones exclude whole blocks.
_MAX_TRIES = 8


@overload
def compile(  # noqa: A001
    module: torch.nn.Module | ExportedProgram,
    ir: str = ...,
    inputs: Sequence[Any] | None = ...,
    *,
    arg_inputs: Sequence[Any] | None = ...,
    kwarg_inputs: Mapping[str, Any] | None = ...,
    dynamic_shapes: Any = ...,
    profiles: Sequence[Mapping[str, int | tuple[int, int, int]]] | None = ...,
    output_format: Literal["exported_program"],
    **options: Unpack[CompileOptions],
) -> ExportedProgram: ...


@overload
def compile(  # noqa: A001
    module: torch.nn.Module | ExportedProgram,
    ir: str = ...,
    inputs: Sequence[Any] | None = ...,
    *,
    arg_inputs: Sequence[Any] | None = ...,
    kwarg_inputs: Mapping[str, Any] | None = ...,
    dynamic_shapes: Any = ...,
    profiles: Sequence[Mapping[str, int | tuple[int, int, int]]] | None = ...,
    output_format: Literal["module"] = ...,
    **options: Unpack[CompileOptions],
) -> torch.nn.Module: ...


def compile(  # noqa: A001  (the name in torch and Torch-TensorRT)
    module: torch.nn.Module | ExportedProgram,
    ir: str = "default",
    inputs: Sequence[Any] | None = None,
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    profiles: Sequence[Mapping[str, int | tuple[int, int, int]]] | None = None,
    output_format: Literal["module", "exported_program"] = "module",
    **options: Unpack[CompileOptions],
) -> torch.nn.Module | ExportedProgram:
    """Compile a model into a program that calls engines and saves as a torch.export program.

    Args:
        module: The model, in eval mode, or an ExportedProgram of it.
        ir: "default" or "dynamo"; both mean torch.export.
        inputs: Example tensors or `Input`s, one for each positional argument, with any shapes and
            dtypes that the model takes. The program takes these shapes and dtypes; if an `Input` or
            `dynamic_shapes` gives a range, it takes any size in the range.
        arg_inputs: Alias of `inputs`.
        kwarg_inputs: Example keyword arguments.
        dynamic_shapes: Dynamic shapes in the form of `torch.export.export`, instead of dynamic
            `Input`s.
        profiles: Optimization profiles of TensorRT engines, such as one for a decoder's prefill and
            one for its steps: each maps the name of a size to a fixed size, or to (min, opt, max)
            within its range. Names are those of `torch.export.Dim`s and of
            `Input(shared_dims=...)`, or "x[0]" for dimension 0 of input `x`. A size that is not
            named has its whole range. ONNX Runtime engines take all sizes in any case.
        output_format: "module" (a callable `torch.nn.Module`) or "exported_program".
        **options: Options as listed below; docs/options.md describes them. Torch-TensorRT's options
            are accepted, and those without an effect here are logged.

    Returns:
        With `output_format="exported_program"` an ExportedProgram, for `torch.export.save`; with
        "module", the default, its module. Weights are constants: later changes to `module` do not
        affect the program. The model itself is not modified. With `dryrun` the captured model.

    Raises:
        SettingsError: An option or an input specification cannot be used.
        CaptureError: torch.export cannot capture the model.
        PartitionError: Nodes stay in PyTorch although `require_full_compilation` was set.
        BackendUnavailableError: An engine name is unknown, or none of `engines` can be built here.
        CheckError: The outputs of an engine differ from PyTorch's on the sample inputs.
        BuildError: No engine of any block could be built, although engines were requested by name
            or `require_full_compilation` was set.
    """
    started = time.perf_counter()
    settings = Settings.from_options({"output_format": output_format, **options})
    _check_ir(ir)
    if inputs is not None and arg_inputs is not None:
        raise SettingsError(
            "both inputs and arg_inputs were given", "one of them", "leave one of them out"
        )
    args = inputs if arg_inputs is None else arg_inputs
    tasks = tasks_for(settings)
    with torch_internals.without_torch_noise():
        captured = capture(
            module, args, kwarg_inputs, dynamic_shapes=dynamic_shapes, strict=settings.strict
        )
        _check_module_names(captured, settings, tasks)
        profile_ranges = sizes_to_tune_for(
            captured, args, kwarg_inputs, dynamic_shapes=dynamic_shapes, profiles=profiles
        )
        program = _compiled(captured, settings, tasks, profile_ranges)
        logger.info("compiled in %.2f s", time.perf_counter() - started)
        return program if settings.output_format == "exported_program" else module_of(program)


def _options_section() -> str:
    """Return docstring sections with every option, grouped by backend."""
    shared = [item for name, item in options_of(Settings).items() if name != "output_format"]
    sections = [docstring_section("Options", shared)]
    for cls, names in built_in_owners().items():
        own = options_of(cls).values()
        sections.append(docstring_section(f"Options of {' and '.join(names)}", own))
    return "\n".join(sections)


if compile.__doc__ is not None:  # python -OO has none
    compile.__doc__ = f"{compile.__doc__.rstrip()}\n\n{_options_section()}    "


def _compiled(
    captured: ExportedProgram,
    settings: Settings,
    tasks: Sequence[EngineTask],
    profile_ranges: ProfileRanges,
) -> ExportedProgram:
    """Return the program with engines; with `dryrun` print the plan and return the captured one."""
    if not settings.dryrun:

        def build() -> tuple[ExportedProgram, bool]:
            return _build(captured, settings, tasks, profile_ranges)

        program = build_program(captured, settings, tasks, profile_ranges, build)
        for text in manifests_of(program):
            for engine in decode(text).engines:
                mark_trusted(engine.data.sha256)  # it was built here
            found = report_of_manifest(parse(text))
            if found is not None:
                write_report(found, settings.report)
        return program
    from portrt.compiler.reports.dryrun import print_plan

    plan = _plan(captured, settings, tasks, profile_ranges, {})
    report = coverage(plan)
    print_plan(plan, [task.builder.name for task in tasks], report)
    if settings.report is not True:  # it was printed
        write_report(report, settings.report)
    return captured


def _check_module_names(
    captured: ExportedProgram, settings: Settings, tasks: Sequence[EngineTask]
) -> None:
    """Warn of module patterns without a match; an ExportedProgram may lack module paths."""
    paths = [ModulePath.of(node.meta) for node in captured.graph.nodes]
    excluded = {name for task in tasks for name in task.settings.autocast_excluded_modules}
    warn_of_unmatched_patterns("torch_executed_modules", settings.torch_executed_modules, paths)
    warn_of_unmatched_patterns("autocast_excluded_modules", excluded, paths)


def _check_ir(ir: str) -> None:
    if ir not in _IRS:
        raise SettingsError(
            f"ir is {ir!r}",
            f"one of {', '.join(map(repr, _IRS))}: portrt captures with torch.export",
            "for TorchScript output compile, then portrt.save(..., output_format='torchscript')",
        )


def _plan(
    captured: ExportedProgram,
    settings: Settings,
    tasks: Sequence[EngineTask],
    profile_ranges: ProfileRanges,
    excluded: Mapping[str, Verdict],
) -> Plan:
    extra = resolved(settings.translations)

    into_onnx = any(task.builder.input == "onnx" for task in tasks)

    def supports(node: torch.fx.Node) -> Verdict:
        translated = translation(node, translations=extra) if into_onnx else YES
        verdicts = (translated, *(task.builder.supports(node) for task in tasks))
        return next((verdict for verdict in verdicts if not verdict), YES)

    lowered = lower(captured, settings)
    if not excluded:
        warn_of_unmatched_operators(
            settings.torch_executed_ops, captured.graph_module, lowered.graph_module
        )
    return partition(lowered, settings, supports, excluded, profile_ranges)


def _build(
    captured: ExportedProgram,
    settings: Settings,
    tasks: Sequence[EngineTask],
    profile_ranges: ProfileRanges,
) -> tuple[ExportedProgram, bool]:
    """Plan and build; after a failure leave the failing nodes to PyTorch and plan again.

    Returns:
        The program, and whether it has every requested engine.
    """
    excluded: dict[str, Verdict] = {}
    for tries in itertools.count(1):
        plan = _plan(captured, settings, tasks, profile_ranges, excluded)
        if tries == 1:
            log_coverage(coverage(plan))
        missing: list[MissingEngine] = []
        image = image_from_tensors(plan.tensors)
        samples = sample_blocks(plan, captured) if _wants_samples(tasks) else {}
        engines: dict[str, list[Engine]] = {}
        failed: dict[str, Verdict] = {}
        for block in plan.blocks:
            engines[block.name], failures = engines_of_block(
                plan, block, image, tasks, samples.get(block.name)
            )
            missing += [
                MissingEngine(block.name, backend, one_line(failure.happened))
                for backend, failure in failures
            ]
            if not engines[block.name]:
                errors = [failure for _, failure in failures]
                failed |= _nodes_to_exclude(block, errors, whole=tries >= _MAX_TRIES)
        if not failed:
            break
        excluded |= failed
    if not plan.blocks:
        _report_nothing_compiled(excluded, settings, tasks)
    policy = {"fallback": settings.fallback}
    if settings.check == "first-open":
        policy["check"] = settings.check
    report = coverage(plan, missing)
    if not plan.blocks:  # there is no manifest to store it
        write_report(report, settings.report)
    program = assemble(
        plan, image if plan.tensors else None, engines, policy, report=report.to_json()
    )
    _copy_shared_tensors(program, captured)
    complete = all(len(made) == len(tasks) for made in engines.values())
    return program, complete and not excluded


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
    block: Block, failures: Sequence[BuildError | ConvertError], *, whole: bool
) -> dict[str, Verdict]:
    """Return the nodes to exclude, with the reason: those that the failures name, or the block."""
    names = {
        node.name
        for node in nested.all_nodes(block.program.graph_module)
        if nested.is_operator(node)
    }
    reason = "; ".join(dict.fromkeys(failure.happened for failure in failures))
    remedy = "; ".join(dict.fromkeys(failure.remedy for failure in failures))
    known = set().union(*(_nodes_at_fault(failure, names) for failure in failures))
    known = known or _control_flow(block)  # which builders support least
    excluded = known if known and not whole else names
    logger.warning(
        "%s of the %d operators of %s stay in PyTorch, and the rest is planned again: %s",
        ", ".join(sorted(known)) if excluded is known else "all",
        len(names),
        block.name,
        f"{reason} (do: {remedy})",
    )
    return dict.fromkeys(excluded, Verdict.no("build_failed", reason, remedy))


def _control_flow(block: Block) -> set[str]:
    return {
        node.name
        for node in block.program.graph.nodes
        if isinstance(node.target, torch._ops.HigherOrderOperator)
    }


def _nodes_at_fault(failure: BuildError | ConvertError, names: set[str]) -> set[str]:
    """Return the nodes of a block that a failure names."""
    if isinstance(failure, ConvertError):
        return {failure.node} & names if failure.node else set()
    return nodes_named(failure.happened, names)


def _report_nothing_compiled(
    excluded: Mapping[str, Verdict], settings: Settings, tasks: Sequence[EngineTask]
) -> None:
    """Log a warning, or raise BuildError if engines were requested by name and failed."""
    if excluded and (settings.engines is not None or settings.require_full_compilation):
        reasons = dict.fromkeys(f"{it.reason} (do: {it.remedy})" for it in excluded.values())
        raise BuildError(
            "no engine of any block could be built:" + "".join(f"\n    {r}" for r in reasons),
            f"an engine by {' or '.join(task.builder.name for task in tasks)}",
            "name the operators in torch_executed_ops, or leave engines out to run in PyTorch",
        )
    logger.warning("no node of the model is in an engine; the whole model runs in PyTorch")
