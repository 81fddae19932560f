"""Compilation: capture -> lower -> partition -> convert -> build -> package."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.compiler.attempts import build_planned
from portrt.compiler.building.tasks import EngineTask, tasks_for
from portrt.compiler.capture import capture
from portrt.compiler.inputs import device_of
from portrt.compiler.left_out import LeftOut
from portrt.compiler.lower import lower
from portrt.compiler.optimize import with_candidates
from portrt.compiler.options.backend_options import built_in_owners
from portrt.compiler.options.fields import docstring_section, options_of
from portrt.compiler.options.settings import Settings
from portrt.compiler.options.torch_tensorrt import runtime_of
from portrt.compiler.package.save import compiled_program
from portrt.compiler.partition import partition
from portrt.compiler.parts.cut import translated_by
from portrt.compiler.parts.engines import planned_shares, supported_by
from portrt.compiler.plan import Plan
from portrt.compiler.program_cache import build_program
from portrt.compiler.reports.coverage import coverage, write_report
from portrt.compiler.reports.unmatched_operators import warn_of_unmatched_operators
from portrt.compiler.sizes.refused_sizes import warn_of_added_guards
from portrt.compiler.sizes.tuning import sizes_to_tune_for
from portrt.errors import SettingsError
from portrt.format.compile_report import report_of_manifest
from portrt.format.manifest import decode, parse
from portrt.graphs.module_path import ModulePath, warn_of_unmatched_patterns
from portrt.graphs.symbols import ProfileRanges
from portrt.runtime.calls import manifests_of
from portrt.runtime.module import module_of
from portrt.runtime.new_weights.compiled_program import with_update_weights
from portrt.runtime.program_runtime import set_runtime
from portrt.runtime.trust import mark_trusted
from portrt.verdict import YES, Verdict

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from portrt.compiler.options.compile_options import CompileOptions

logger = logging.getLogger(__name__)

_IRS = ("default", "dynamo")


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
    runtime = runtime_of(options)
    _check_ir(ir)
    ready = compiled_program(module)
    if ready is not None:
        logger.warning(
            "the model is a compiled program and is returned as it is: give the model itself for "
            "other options, or a file to portrt.files.add_engine for one more engine"
        )
        return ready if settings.output_format == "exported_program" else module_of(ready)
    if inputs is not None and arg_inputs is not None:
        raise SettingsError(
            "both inputs and arg_inputs were given", "one of them", "leave one of them out"
        )
    args = inputs if arg_inputs is None else arg_inputs
    device = device_of(module, args, kwarg_inputs)
    settings = with_candidates(settings, device)
    tasks = tasks_for(settings, device)
    with torch_internals.without_torch_noise():
        captured = capture(
            module, args, kwarg_inputs, dynamic_shapes=dynamic_shapes, strict=settings.strict
        )
        _check_module_names(captured, settings, tasks)
        profile_ranges = sizes_to_tune_for(
            captured, args, kwarg_inputs, dynamic_shapes=dynamic_shapes, profiles=profiles
        )
        program = _compiled(captured, settings, tasks, profile_ranges, started)
        warn_of_added_guards(program, captured)
        if runtime is not None:
            set_runtime(program, runtime)
        logger.info("compiled in %.2f s", time.perf_counter() - started)
        if settings.output_format == "exported_program":
            return program if settings.dryrun else with_update_weights(program)
        return module_of(program)


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
    started: float,
) -> ExportedProgram:
    """Return the program with engines; with `dryrun` print the plan and return the captured one."""
    if not settings.dryrun:

        def build() -> tuple[ExportedProgram, bool]:
            def plan(left_out: LeftOut) -> Plan:
                return _plan(
                    captured, settings, tasks, profile_ranges, left_out.nodes, left_out.whole
                )

            def lower_again(left_out: LeftOut) -> ExportedProgram:
                return lower(captured, settings, left_out.whole)

            return build_planned(captured, settings, tasks, plan, lower_again, started)

        program = build_program(captured, settings, tasks, profile_ranges, build)
        for text in manifests_of(program):
            for engine in decode(text).engines:
                for blob in engine.blobs:
                    mark_trusted(blob.sha256)  # it was built here
            found = report_of_manifest(parse(text))
            if found is not None:
                write_report(found, settings.report)
        return program
    from portrt.compiler.reports.dryrun import print_plan

    plan = _plan(captured, settings, tasks, profile_ranges, {})
    report = coverage(plan, shares=planned_shares(plan, settings, tasks))
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
    whole: Mapping[str, Verdict] | None = None,
) -> Plan:
    """Lower and partition.

    Args:
        captured: The captured program.
        settings: Settings of the compilation.
        tasks: The engines to build.
        profile_ranges: Optimization profiles of the engines.
        excluded: Name of a node of the lowered program -> why it stays in PyTorch.
        whole: Name of a node of the captured program -> why it stays as it is, in PyTorch.
    """
    whole = whole or {}
    translated = translated_by(settings)
    some = supported_by(tasks, translated)
    every = supported_by(tasks, translated, every=True)

    def kept(node: torch.fx.Node) -> Verdict:
        return whole.get(torch_internals.origin_of(node), YES) if whole else YES

    def supports(node: torch.fx.Node) -> Verdict:
        return kept(node) and some(node)

    def supports_all(node: torch.fx.Node) -> Verdict:
        return kept(node) and every(node)

    folded: set[str] = set()
    lowered = lower(captured, settings, whole, folded)
    if not excluded and not whole:
        warn_of_unmatched_operators(
            settings.torch_executed_ops, captured.graph_module, lowered.graph_module
        )
    plan = partition(
        lowered, settings, supports, excluded, profile_ranges, supports_all=supports_all
    )
    return dataclasses.replace(plan, folded=plan.folded | folded)
