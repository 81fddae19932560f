"""from_plan: the bytes of an engine -> a program that saves, loads and runs like any other."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.arguments import as_names
from portrt.compiler.building.check import check_engine, sample_blocks
from portrt.compiler.inputs import Input
from portrt.compiler.options.settings import Settings
from portrt.compiler.package.assemble import assemble
from portrt.compiler.plan import Engine, Plan
from portrt.errors import SettingsError
from portrt.prebuilt.bindings import check_names, named_inputs
from portrt.prebuilt.outputs import plan_without_source
from portrt.prebuilt.plan_engine import DeclaredRequirements, adopted_engine, plan_bytes_of
from portrt.prebuilt.source import (
    argument_names_of,
    input_bindings,
    output_bindings,
    plan_of_source,
)
from portrt.runtime.module import module_of
from portrt.runtime.policy import Policy
from portrt.runtime.trust import mark_trusted
from portrt.targets.trust import HOST_CODE, NOT_TRUSTED
from portrt.weights import image_from_tensors

logger = logging.getLogger(__name__)

Outputs = Callable[..., Any] | Mapping[str, torch.Tensor]
Inputs = Mapping[str, torch.Tensor | Input] | Sequence[torch.Tensor | Input]


def from_plan(
    plan_bytes: Any,
    inputs: Inputs,
    outputs: Outputs | None = None,
    source: torch.nn.Module | ExportedProgram | None = None,
    *,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = None,
    compute_capabilities: Sequence[str] | str | None = None,
    hardware_compatible: bool = False,
    version_compatible: bool | None = None,
    lean_runtime: str | None = None,
    precision: Any = None,
    trust: Sequence[str] | str | None = None,
    output_format: str = "module",
    fallback: str | None = None,
    check: str = "error",
) -> torch.nn.Module | ExportedProgram:
    """Make a program of a TensorRT engine that was built elsewhere.

    Args:
        plan_bytes: The serialized engine of TensorRT (8.6 or newer) or TensorRT-RTX: bytes, a 1-D
            uint8 tensor, or the path of a file.
        inputs: Binding name -> example tensor or `Input`, in the order in which the program is
            called; a list with a source, whose argument names then are the binding names. Dtypes
            are what the program takes; where the engine has INT32, int64 is converted at each call.
        outputs: Without a source: a function of tensors like the inputs that returns empty tensors
            like the outputs, as for `torch.library.register_fake`, as a mapping from binding names
            or in the order of `output_names`; or, where no shape varies, a mapping from binding
            names to example tensors. With a source None, or a mapping from binding names in the
            order of what the source returns.
        source: Computes the same as the engine. It is stored in the program: what runs in PyTorch
            where the engine cannot, and what `portrt verify` compares with. None stores none.
        output_names: Names of the output bindings, in order, where `outputs` does not give them.
        dynamic_shapes: As `torch.export.export` takes it, instead of dynamic `Input`s.
        compute_capabilities: GPUs that the engine was built for, such as "9.0", where its header
            does not tell; without them only opening it shows whether it fits.
        hardware_compatible: It was built for every GPU from compute capability 8.0; its header may
            tell that, too.
        version_compatible: It was built for later versions of TensorRT too. None takes what the
            header tells, and where it tells nothing False: then its own version alone runs it.
        lean_runtime: Where the lean runtime of a version-compatible engine is: "inside" it, or
            "outside", where the header does not tell.
        precision: "fp16", "bf16", "int8" or "fp8" where its builder was allowed to compute in that
            and its outputs are float32: it is compared with the source by the tolerance for that.
        trust: "host-code" where you trust whoever made the engine: a version-compatible one brings
            code for the CPU along. In this process, and in no file.
        output_format: "module" or "exported_program", as for `compile`.
        fallback: "eager" or "error", as for `compile`; None leaves it to where the program runs.
        check: "error", "accept", "first-open" or "off", as for `compile`: the engine is compared
            with the source where it can run here, on the device of `inputs`; with "first-open" else
            where it is opened first.

    Returns:
        What `compile` returns: a module, or an ExportedProgram for `torch.export.save`. Without a
        source it returns one tensor, or a tuple in the order of the names.

    Raises:
        PackageError: The bytes are no plan, or cut off.
        LoadError: The file cannot be read.
        SettingsError: Names are missing, or something given contradicts the rest.
        CaptureError: The source cannot be captured, or `outputs` cannot be traced.
        PartitionError: A part of the source can be in no engine.
        BuildError: The engine fails on the sample inputs.
        CheckError: The engine gives other numbers than the source.
    """
    settings = Settings.from_options(
        {"output_format": output_format, "fallback": fallback, "check": check}
    )
    trusted = HOST_CODE in (Policy(trust=as_names(trust, "trust")).trust or ())
    data = plan_bytes_of(plan_bytes)
    said = DeclaredRequirements(
        compute_capabilities, hardware_compatible, version_compatible, lean_runtime, precision
    )
    adopted_engine(data, said, (), ())  # what is no plan is refused first
    if check == "first-open" and source is None:
        raise SettingsError(
            "check is 'first-open', and there is no source to compare with",
            "a source, or another check",
            "give source=..., or leave check out",
        )
    names = None if source is None else argument_names_of(source)
    given = named_inputs(inputs, names)
    with torch_internals.without_torch_noise():
        if source is None:
            captured, plan, out_names = plan_without_source(
                given, _needed(outputs), output_names, dynamic_shapes
            )
            in_names = list(given)
        else:
            captured, plan = plan_of_source(source, given, dynamic_shapes)
            in_names = input_bindings(plan, captured, list(given))
            out_names = output_bindings(plan, captured, outputs, output_names)
        check_names([*in_names, *out_names], "input or output")
        engine = adopted_engine(data, said, in_names, out_names)
        _warn_of_names(data, [*in_names, *out_names])
        image = image_from_tensors(plan.tensors)
        if trusted:
            mark_trusted(hashlib.sha256(data).hexdigest())
        checked = _check(captured, plan, engine, image, settings, trusted, source is not None)
        program = assemble(
            plan,
            image if plan.tensors else None,
            {plan.blocks[0].name: [dataclasses.replace(engine, check=checked)]},
            _policy(settings),
            with_sources=source is not None,
        )
        logger.info(
            "adopted a plan of %s %s, %d bytes", engine.backend, engine.build["version"], len(data)
        )
        return program if output_format == "exported_program" else module_of(program)


def _policy(settings: Settings) -> dict[str, Any]:
    own = {"check": settings.check} if settings.check == "first-open" else {}
    return {"fallback": settings.fallback, **own}


def _warn_of_names(data: bytes, names: Sequence[str]) -> None:
    """A plan holds the names of its bindings; a wrong one would show only where it is opened."""
    for name in names:
        if name.encode() not in data:
            logger.warning("the plan does not hold the name %r: is it that of a binding?", name)


def _needed(outputs: Outputs | None) -> Outputs:
    if outputs is None:
        raise SettingsError(
            "neither outputs nor source was given",
            "outputs=..., from which the shapes of the results are known, or a source",
            "write outputs=lambda x: {'y': x.new_empty(x.shape[0], 10)}",
        )
    return outputs


def _check(
    captured: ExportedProgram,
    plan: Plan,
    engine: Engine,
    image: torch.Tensor,
    settings: Settings,
    trusted: bool,
    has_source: bool,
) -> Mapping[str, Any] | None:
    """How its numbers compare with the source's, or why that is not known."""
    if settings.check == "off":
        return None
    if not has_source:
        return {"skipped": "there is no source to compare with"}
    if engine.requires.get("host_code") and not trusted:
        return {"skipped": NOT_TRUSTED.reason}
    block = plan.blocks[0]
    sample = sample_blocks(plan, captured).get(block.name)
    accept = settings.check == "accept"
    return check_engine(block, engine, image, sample, accept=accept, trusted=trusted)
