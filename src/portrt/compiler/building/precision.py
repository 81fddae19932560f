"""Engines in a lower precision than the model's: conversion and check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portrt.compiler.plan import Block

import dataclasses
import logging
from collections.abc import Mapping
from functools import lru_cache

import torch

from portrt.compiler.backends.base import BuildInput
from portrt.compiler.backends.onnxruntime.rewrites.widen_bfloat16 import (
    widen_bfloat16,
    widen_float16,
)
from portrt.compiler.backends.registry import builder
from portrt.compiler.building.check import Sample, check_engine
from portrt.compiler.building.stored_precision import autocast_entry
from portrt.compiler.convert import OnnxModel
from portrt.compiler.convert.autocast import AutocastRules, autocast
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Block, Engine
from portrt.errors import BuildError
from portrt.targets.backends import find

logger = logging.getLogger(__name__)

_WIDEN = {"fp16": widen_float16, "bf16": widen_bfloat16}


def lowered_precision(backend: str, block: Block, settings: Settings) -> str | None:
    """Return the precision that replaces float32, or None to keep the model's dtypes."""
    wanted = settings.precision
    if wanted is None or reason_for_float32(backend, wanted):
        return None
    return wanted if "fp32" in precision_of_block(block).split("+") else None


def precision_entry(backend: str, block: Block, settings: Settings) -> dict[str, Any]:
    """Return the precision fields of an engine's `build` entry.

    These are `precision`, the reason if it is not the requested one, and the requested one.
    """
    lowered = lowered_precision(backend, block, settings)
    reason = reason_for_float32(backend, settings.precision)
    found = {"precision": lowered or precision_of_block(block), **autocast_entry(settings)}
    return {**found, "precision_reason": reason} if reason else found


def material_in_precision(
    backend: str, material: BuildInput, settings: Settings, sample: Sample | None
) -> BuildInput:
    """Return the build input with conversions in the precision of the engine.

    Args:
        backend: Name of the engine's backend.
        material: Build input in the dtypes of the model.
        settings: Settings of the engine.
        sample: Real inputs: nodes whose values are too large for float16 on them stay in float32.
    """
    precision = lowered_precision(backend, material.block, settings)
    if precision is None:
        return material
    large = frozenset[str]()
    if precision == "fp16" and sample is not None:
        large = _too_large(material, sample, settings.autocast_max_output_threshold)
    rules = AutocastRules(
        precision,
        sorted(settings.autocast_excluded_modules),
        settings.autocast_excluded_ops,
        large,
    )

    @lru_cache
    def largest_weight(name: str) -> float:
        return _largest_finite(material.tensors[name].detach())

    @lru_cache
    def convert(opset: int, small_apart: bool = False) -> OnnxModel:
        return autocast(material.convert(opset, small_apart), rules, largest_weight)

    return BuildInput(material.block, material.tensors, material.image, convert, large)


def _too_large(material: BuildInput, sample: Sample, limit: float) -> frozenset[str]:
    """Return the nodes, including inputs, whose values on the sample exceed the limit."""
    found: dict[str, float] = {}

    class Measure(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                found[n.name] = _largest_finite(value)
            return value

    block = material.block
    weights = [material.tensors[name] for name in block.weights]
    try:
        with torch.no_grad():
            Measure(block.program.graph_module).run(*sample.inputs, *weights)
    except Exception:
        logger.warning("the values in %s cannot be measured", block.name, exc_info=True)
        return frozenset()
    large = {name: value for name, value in found.items() if value > limit}
    if large:
        listed = ", ".join(f"{name} ({value:.1e})" for name, value in large.items())
        logger.info("in float32 as their values are large: %s of %s", listed, block.name)
    return frozenset(large)


def _largest_finite(tensor: torch.Tensor) -> float:
    finite = tensor[torch.isfinite(tensor)]
    return float(finite.abs().max()) if finite.numel() else 0.0


def simulated_check(
    engine: Engine, material: BuildInput, sample: Sample, *, accept: bool
) -> Mapping[str, Any]:
    """Check an engine's precision by simulation, if the engine itself cannot run here.

    ONNX Runtime computes the same ONNX model in float32 and rounds after each operator.

    Args:
        engine: The engine, in a lowered precision.
        material: Build input of the engine.
        sample: Inputs and outputs of the block in PyTorch.
        accept: Log a difference beyond the tolerance instead of raising.

    Returns:
        The field "simulated" for the manifest: an entry for each output, or the reason why there is
        none.

    Raises:
        CheckError: An output differs by more than the tolerance of the precision.
    """
    precision = engine.build["precision"]
    model = material.convert(engine.build["opset"])
    rounded = dataclasses.replace(
        engine,
        backend="onnxruntime",
        data=_WIDEN[precision](model.data),
        requires={"device": ["cpu"]},
        weights=model.weights,
    )
    inputs, outputs = (
        tuple(tensor.cpu() for tensor in part) for part in (sample.inputs, sample.outputs)
    )
    label = f"{material.block.name}, rounded to {precision} as the {engine.backend} engine would,"
    try:
        check = check_engine(
            material.block,
            rounded,
            material.image,
            Sample(inputs, outputs),
            accept=accept,
            label=label,
        )
    except BuildError as err:
        return {"simulated": err.happened}
    return {"simulated": check.get("outputs", check.get("skipped"))}


# (backend, precision) -> reason why its engines stay in float32.
KEPT_IN_FLOAT32 = {
    ("onnxruntime", "bf16"): "ONNX Runtime has no bfloat16 kernels for a CPU",
    ("openvino", "fp16"): "OpenVINO computes float16 in float32 on a CPU",
}


def reason_for_float32(backend: str, precision: str | None) -> str:
    """Return why an engine of this backend stays in float32 despite the requested one, or ""."""
    if precision is None:
        return ""
    if find(backend) is not None and builder(backend).input == "program":
        return "its builder reads the exported program; a lower precision is written into ONNX"
    return KEPT_IN_FLOAT32.get((backend, precision), "")


def precision_of_block(block: Block) -> str:
    """Return the floating-point and quantized dtypes of a block, such as "fp32+int8"."""
    import torch

    from portrt.graphs import nested

    names = {
        torch.float64: "fp64",
        torch.float32: "fp32",
        torch.bfloat16: "bf16",
        torch.float16: "fp16",
        torch.float8_e4m3fn: "fp8",
    }
    every = nested.all_nodes(block.program.graph_module)
    nodes = [node for node in every if node.op == "call_function"]
    values = [node.meta.get("val") for node in nodes]  # outputs only: scales may be float64
    dtypes = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    found = [name for dtype, name in names.items() if dtype in dtypes]
    if any("quantize" in str(node.target) for node in nodes):
        found += ["int8"] if dtypes & {torch.int8, torch.uint8} else []
    elif any(map(_rounds_to_int8, nodes)):
        found += ["int8"]
    return "+".join(found) or "integer"


def _rounds_to_int8(node: Any) -> bool:
    """Return whether a node takes a float tensor and returns int8, as arithmetic quantizers do."""
    import torch

    inputs = [source.meta.get("val") for source in node.all_input_nodes]
    output = node.meta.get("val")
    return getattr(output, "dtype", None) == torch.int8 and any(
        isinstance(value, torch.Tensor) and value.is_floating_point() for value in inputs
    )
