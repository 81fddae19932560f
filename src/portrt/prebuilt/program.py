"""from_plan: makes a program that saves, loads and runs like any other, of a built engine."""

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
from portrt.prebuilt.plan_engine import DeclaredRequirements, plan_bytes_of, prebuilt_engine
from portrt.prebuilt.source import (
    argument_names_of,
    input_bindings,
    output_bindings,
    plan_of_source,
)
from portrt.runtime.module import module_of
from portrt.runtime.policy import Policy, stored_fallback
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
        inputs: Binding name -> example tensor or `Input`, in call order; or, with a source, a list,
            where the source's argument names are the binding names. Dtypes are those of the
            program; where the engine has INT32, int64 is converted in each call.
        outputs: Without a source: a function of tensors like the inputs that returns empty tensors
            like the outputs, as in `torch.library.register_fake`, as a mapping from binding names
            or in the order of `output_names`; or, if all shapes are static, a mapping from binding
            names to example tensors. With a source: None, or a mapping from binding names in the
            order of the source's results.
        source: A model that computes the same as the engine. It is stored in the program: it runs
            in PyTorch where the engine cannot, and `portrt verify` compares with it. None stores
            none.
        output_names: Names of the output bindings, in order, if `outputs` does not give them.
        dynamic_shapes: Dynamic shapes as in `torch.export.export`, instead of dynamic `Input`s.
        compute_capabilities: GPUs that the engine was built for, such as "9.0", if its header does
            not have them; otherwise only opening the engine shows whether it fits.
        hardware_compatible: Whether it was built for every GPU from compute capability 8.0; its
            header may have that, too.
        version_compatible: Whether it was built for later versions of TensorRT, too. None takes the
            header's value, or False: then its own version alone runs it.
        lean_runtime: Location of the lean runtime of a version-compatible engine, "inside" or
            "outside" of it, if the header does not have it.
        precision: "fp16", "bf16", "int8" or "fp8", if the builder was allowed to compute in it and
            the outputs are float32: the tolerance for comparing with the source depends on it.
        trust: "host-code" if you trust the author of the engine: a version-compatible one carries
            host (CPU) code. It holds in this process, and is not stored.
        output_format: "module" or "exported_program", as in `compile`.
        fallback: "eager", "inductor" or "error", as in `compile`; None leaves it to the
            machine that runs the program.
        check: "error", "accept", "first-open" or "off", as in `compile`: the engine is compared
            with the source if it can run here, on the device of `inputs`; with "first-open"
            otherwise where it is first opened.

    Returns:
        What `compile` returns: a module, or an ExportedProgram for `torch.export.save`. Without a
        source it returns one tensor, or a tuple in the order of the names.

    Raises:
        PackageError: The bytes are no serialized engine, or truncated.
        LoadError: The file cannot be read.
        SettingsError: Names are missing, or arguments contradict each other or the header.
        CaptureError: The source cannot be captured, or `outputs` cannot be traced.
        PartitionError: A part of the source can be in no engine.
        BuildError: The engine fails on the sample inputs.
        CheckError: The engine's outputs differ from those of the source.
    """
    settings = Settings.from_options(
        {"output_format": output_format, "fallback": fallback, "check": check}
    )
    trusted = HOST_CODE in (Policy(trust=as_names(trust, "trust")).trust or ())
    data = plan_bytes_of(plan_bytes)
    declared = DeclaredRequirements(
        compute_capabilities, hardware_compatible, version_compatible, lean_runtime, precision
    )
    prebuilt_engine(data, declared, (), ())  # raises for what is no plan, before capturing
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
        engine = prebuilt_engine(data, declared, in_names, out_names)
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
            "made a program of a plan of %s %s, %d bytes",
            engine.backend,
            engine.build["version"],
            len(data),
        )
        return program if output_format == "exported_program" else module_of(program)


def _policy(settings: Settings) -> dict[str, Any]:
    own = {"check": settings.check} if settings.check == "first-open" else {}
    return {**stored_fallback(settings.fallback), **own}


def _warn_of_names(data: bytes, names: Sequence[str]) -> None:
    """Warn of names that the plan does not contain: else they fail only when it is opened."""
    for name in names:
        if name.encode() not in data:
            logger.warning("the plan does not contain the name %r: is it that of a binding?", name)


def _needed(outputs: Outputs | None) -> Outputs:
    if outputs is None:
        raise SettingsError(
            "neither outputs nor source was given",
            "outputs=..., which gives the shapes of the outputs, or a source",
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
    """Compare the engine with its source; return the result, or why it was skipped."""
    if settings.check == "off":
        return None
    if not has_source:
        return {"skipped": "there is no source to compare with"}
    if engine.requires.get("host_code") and not trusted:
        return {"skipped": NOT_TRUSTED.reason}
    block = plan.blocks[0]
    sample = sample_blocks(plan, captured).samples.get(block.name)
    accept = settings.check == "accept"
    return check_engine(block, engine, image, sample, accept=accept, trusted=trusted)
