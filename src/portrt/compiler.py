"""compile: capture -> lower -> partition -> convert -> build -> package."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, overload

import torch
from torch.export import ExportedProgram

from portrt.artifacts import YES, Block, Engine, Plan, Verdict
from portrt.backends import registry
from portrt.backends.base import Backend, Material
from portrt.capture import best_sizes, capture
from portrt.check import Sample, check_engine, sample_blocks
from portrt.convert import OnnxModel, onnx_from_block, translation
from portrt.errors import (
    BackendUnavailableError,
    BuildError,
    ConvertError,
    SettingsError,
)
from portrt.lower import lower
from portrt.package.assemble import assemble
from portrt.package.module import module_of
from portrt.package.weights import WeightsImage, image_from_tensors
from portrt.partition import partition
from portrt.settings import Settings

logger = logging.getLogger(__name__)

_IRS = ("default", "dynamo")

# So many nodes that fail to convert are found one by one; then their whole blocks are given up.
_MOST_TRIES = 8


@overload
def compile(  # noqa: A001
    module: torch.nn.Module | ExportedProgram,
    ir: str = ...,
    inputs: Sequence[Any] | None = ...,
    *,
    output_format: Literal["exported_program"],
    **options: Any,
) -> ExportedProgram: ...


@overload
def compile(  # noqa: A001
    module: torch.nn.Module | ExportedProgram,
    ir: str = ...,
    inputs: Sequence[Any] | None = ...,
    *,
    output_format: Literal["module"] = ...,
    **options: Any,
) -> torch.nn.Module: ...


def compile(  # noqa: A001  (the name that users of torch and Torch-TensorRT expect
    module: torch.nn.Module | ExportedProgram,
    ir: str = "default",
    inputs: Sequence[Any] | None = None,
    *,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    **options: Any,
) -> torch.nn.Module | ExportedProgram:
    """Compile a model into a program that calls engines and saves as a torch.export program.

    Args:
        module: The model, in eval mode, or a program that `torch.export` made of one.
        ir: "default" or "dynamo"; both mean torch.export.
        inputs: Example tensors or `Input`s, one for each positional argument. Any shapes and
            dtypes that the model takes; the program takes these, and, where an `Input` or
            `dynamic_shapes` gives a range, any size in it.
        arg_inputs: Another name for `inputs`.
        kwarg_inputs: Example keyword arguments.
        dynamic_shapes: As `torch.export.export` takes it, instead of dynamic `Input`s.
        **options: The fields of `Settings`, and Torch-TensorRT's options, of which those without
            meaning here are named in the log.

    Returns:
        With `output_format="exported_program"` an ExportedProgram, for `torch.export.save`; with
        "module", the default, its module. Weights are constants: later changes to `module` do not
        reach the program. The model itself is not changed. With `dryrun` the model as captured.

    Raises:
        SettingsError: An option or an input specification cannot be used.
        CaptureError: torch.export cannot capture the model.
        PartitionError: Nodes stay in PyTorch although `require_full_compilation` was set.
        BackendUnavailableError: An engine name is unknown, or none of `engines` can be built here.
        CheckError: An engine gives other numbers than PyTorch on the sample inputs.
        BuildError: No engine of any block could be built, although engines were asked for by name
            or `require_full_compilation` was set.
    """
    started = time.perf_counter()
    settings = Settings.from_options(options)
    _check_ir(ir)
    if inputs is not None and arg_inputs is not None:
        raise SettingsError(
            "both inputs and arg_inputs were given", "one of them", "leave one of them out"
        )
    args = inputs if arg_inputs is None else arg_inputs
    backends = _usable_backends(settings)
    captured = capture(
        module, args, kwarg_inputs, dynamic_shapes=dynamic_shapes, strict=settings.strict
    )
    best = best_sizes(captured, args, kwarg_inputs)
    if settings.dryrun:
        from portrt.dryrun import print_plan

        plan = _plan(captured, settings, backends, best, {})
        print_plan(plan, [item.name for item in backends])
        return _formatted(captured, settings)
    program = _build(captured, settings, backends, best)
    logger.info("compiled in %.2f s", time.perf_counter() - started)
    return _formatted(program, settings)


def _check_ir(ir: str) -> None:
    if ir not in _IRS:
        raise SettingsError(
            f"ir is {ir!r}",
            f"one of {', '.join(map(repr, _IRS))}: portrt captures with torch.export",
            "for TorchScript output compile, then portrt.save(..., output_format='torchscript')",
        )


def _formatted(program: ExportedProgram, settings: Settings) -> torch.nn.Module | ExportedProgram:
    if settings.output_format == "exported_program":
        return program
    return module_of(program)


def _usable_backends(settings: Settings) -> list[Backend]:
    """The backends to build for.

    Raises:
        BackendUnavailableError: A name is unknown, or none of them can build here.
    """
    asked = settings.engines or registry.names()
    found: list[Backend] = []
    refused: list[str] = []
    remedies: list[str] = []
    for name in asked:
        backend = registry.backend(name)
        verdict = backend.can_build()
        if verdict:
            found.append(backend)
            continue
        refused.append(f"{name}: {verdict}")
        remedies.append(verdict.remedy)
        if settings.engines is not None:
            logger.warning("no %s engine will be built: %s", name, verdict)
    if not found:
        raise BackendUnavailableError(
            "none of the engines can be built here:" + "".join(f"\n    {r}" for r in refused),
            "at least one backend that can build on this machine",
            " or ".join(remedy for remedy in remedies if remedy) or "see `portrt doctor`",
        )
    return found


def _plan(
    captured: ExportedProgram,
    settings: Settings,
    backends: Sequence[Backend],
    best: Mapping[Any, int],
    excluded: Mapping[str, str],
) -> Plan:
    def supports(node: torch.fx.Node) -> Verdict:
        verdicts = (translation(node), *(backend.supports(node) for backend in backends))
        return next((verdict for verdict in verdicts if not verdict), YES)

    return partition(lower(captured), settings, supports, excluded, best)


def _build(
    captured: ExportedProgram,
    settings: Settings,
    backends: Sequence[Backend],
    best: Mapping[Any, int],
) -> ExportedProgram:
    """Plan and build; what turns out to fail is left to PyTorch, and the rest planned again."""
    excluded: dict[str, str] = {}
    for tries in itertools.count(1):
        plan = _plan(captured, settings, backends, best, excluded)
        image = image_from_tensors(plan.tensors)
        samples = {} if settings.check == "off" else sample_blocks(plan, captured)
        engines: dict[str, list[Engine]] = {}
        refused: dict[str, str] = {}
        for block in plan.blocks:
            engines[block.name], failures = _engines(
                plan, block, image, settings, backends, samples.get(block.name)
            )
            if not engines[block.name]:
                refused |= _nodes_to_exclude(block, failures, whole=tries >= _MOST_TRIES)
        if not refused:
            break
        excluded |= refused
    if not plan.blocks:
        _say_that_nothing_is_compiled(excluded, settings, backends)
    policy = {"fallback": settings.fallback}
    program = assemble(plan, image if plan.tensors else None, engines, policy)
    _copy_what_is_shared(program, captured)
    return program


def _copy_what_is_shared(program: ExportedProgram, captured: ExportedProgram) -> None:
    """Give the program its own copies of the model's tensors, such as buffers that calls change."""
    pairs = (
        (program.state_dict, captured.state_dict),
        (program.constants, captured.constants),
    )
    seen: dict[int, Any] = {}  # tied tensors stay tied
    for own, theirs in pairs:
        for name, held in own.items():
            if name in theirs and isinstance(held, torch.Tensor):
                own[name] = copy.deepcopy(held, seen)


def _nodes_to_exclude(
    block: Block, failures: Sequence[BuildError | ConvertError], *, whole: bool
) -> dict[str, str]:
    """Node -> reason: the nodes that the failures are about if known, else the whole block."""
    names = {
        node.name
        for node in block.program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    }
    reason = "; ".join(dict.fromkeys(f"{it.happened} (do: {it.remedy})" for it in failures))
    known = set().union(*(_nodes_named(failure, names) for failure in failures))
    excluded = known if known and not whole else names
    logger.warning(
        "%s of the %d operators of %s stay in PyTorch, and the rest is planned again: %s",
        ", ".join(sorted(known)) if excluded is known else "all",
        len(names),
        block.name,
        reason,
    )
    return dict.fromkeys(excluded, reason)


def _nodes_named(failure: BuildError | ConvertError, names: set[str]) -> set[str]:
    """The nodes of a block that a failure names.

    torch.onnx calls what it makes of `add_1` `node_add_1`, or `node_add_1_0` and so on.
    """
    if isinstance(failure, ConvertError):
        return {failure.node} & names if failure.node else set()
    found = set()
    for name in re.findall(r"\bnode_(\w+)", failure.happened):
        found |= {name, re.sub(r"_\d+$", "", name)} & names if name not in names else {name}
    return found


def _say_that_nothing_is_compiled(
    excluded: Mapping[str, str], settings: Settings, backends: Sequence[Backend]
) -> None:
    """A warning; where engines were asked for by name and failed, a BuildError."""
    if excluded and (settings.engines is not None or settings.require_full_compilation):
        reasons = dict.fromkeys(excluded.values())
        raise BuildError(
            "no engine of any block could be built:" + "".join(f"\n    {r}" for r in reasons),
            f"an engine by {' or '.join(backend.name for backend in backends)}",
            "name the operators in torch_executed_ops, or leave engines out to run in PyTorch",
        )
    logger.warning("no node of the model is in an engine; the whole model runs in PyTorch")


def _engines(
    plan: Plan,
    block: Block,
    image: torch.Tensor,
    settings: Settings,
    backends: Sequence[Backend],
    sample: Sample | None,
) -> tuple[list[Engine], list[BuildError | ConvertError]]:
    """The engines of one block, and the errors of the backends that made none."""

    @lru_cache
    def convert(opset: int) -> OnnxModel:
        return onnx_from_block(block, plan.tensors, WeightsImage(image), opset)

    material = Material(block, plan.tensors, image, convert)
    built: list[Engine] = []
    failures: list[BuildError | ConvertError] = []
    for backend in backends:
        started = time.perf_counter()
        try:
            engine = backend.build(material, settings)
            if settings.check != "off":
                check = check_engine(
                    block, engine, image, sample, accept=settings.check == "accept"
                )
                engine = dataclasses.replace(engine, check=check)
        except (BuildError, ConvertError) as err:
            failures.append(err)
            logger.warning("no %s engine for %s: %s", backend.name, block.name, err)
            continue
        seconds = time.perf_counter() - started
        logger.info(
            "built %s for %s: %d bytes in %.2f s",
            backend.name,
            block.name,
            len(engine.data),
            seconds,
        )
        built.append(engine)
    return built, failures
