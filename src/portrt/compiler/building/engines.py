"""Building of a block's engines, one for each task."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from portrt.compiler.backends.base import BuildInput
from portrt.compiler.building.branches import with_other_branches
from portrt.compiler.building.check import FirstRun, Sample, check_engine, run_block
from portrt.compiler.building.engine_cache import build_engine
from portrt.compiler.building.precision import (
    lowered_precision,
    material_in_precision,
    precision_entry,
    simulated_check,
)
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.convert import OnnxModel, onnx_from_block
from portrt.compiler.convert.changeable_weights import small_weights
from portrt.compiler.convert.translations import Translations, resolved
from portrt.compiler.plan import Block, Engine, Plan
from portrt.errors import BuildError, CheckError, ConvertError
from portrt.numerics.compare import worst_difference
from portrt.weights import WeightsImage

logger = logging.getLogger(__name__)

Failure = BuildError | ConvertError


def _no_keep(_: FirstRun) -> None:
    return


# Builds the engine of one block for a task, checked on a sample (None leaves it unchecked), and
# hands the opened engine and its run to the function. Raises a `Failure`, or CheckError if the
# engine's outputs differ from those of the block.
Keep = Callable[[FirstRun], None]
Build = Callable[[EngineTask, Sample | None, Keep], Engine]


def engine_builder(
    tensors: Mapping[str, torch.Tensor],
    block: Block,
    image: torch.Tensor,
    translations: Iterable[tuple[str, Callable[..., Any]]],
) -> Build:
    """Return the function that builds engines of one block, which share its conversions to ONNX.

    Args:
        tensors: Name -> weight, for the weights of the block.
        block: Block to build engines of.
        image: The weights image of the program.
        translations: The option `translations` of `compile`.
    """
    extra = resolved(translations)

    def input_of(block: Block) -> BuildInput:
        return _build_input(tensors, block, image, extra)

    build_input = input_of(block)

    def build(task: EngineTask, sample: Sample | None, keep: Keep = _no_keep) -> Engine:
        engine = _build_one(task, build_input, sample, keep)
        if sample is not None and "outputs" in (engine.check or {}):
            _check_other_branches(task, block, input_of, sample)
        return engine

    return build


def build_input_of(
    plan: Plan, block: Block, image: torch.Tensor, tasks: Sequence[EngineTask]
) -> BuildInput:
    """Return what builders take for a block; it is converted once for each opset."""
    extra = resolved(tasks[0].settings.translations) if tasks else ()
    return _build_input(plan.tensors, block, image, extra)


def _build_input(
    tensors: Mapping[str, torch.Tensor], block: Block, image: torch.Tensor, extra: Translations
) -> BuildInput:
    @lru_cache
    def converted(opset: int, small_apart: bool) -> OnnxModel:
        weights = WeightsImage(image)
        return onnx_from_block(block, tensors, weights, opset, extra, small_apart)

    def convert(opset: int, small_apart: bool = False) -> OnnxModel:
        return converted(opset, small_apart and bool(small_weights(block, tensors)))

    return BuildInput(block, tensors, image, convert)


def unchecked_engine(
    task: EngineTask, build_input: BuildInput, sample: Sample | None
) -> tuple[Engine, BuildInput]:
    """Build an engine without checking it; also return the input that it was built from."""
    settings, block, name = task.settings, build_input.block, task.builder.name
    build_input = material_in_precision(name, build_input, settings, sample)
    engine = build_engine(task.builder, build_input, settings)
    precision = precision_entry(name, block, settings)
    return dataclasses.replace(engine, build={**engine.build, **precision}), build_input


def _check_other_branches(
    task: EngineTask, block: Block, input_of: Callable[[Block], BuildInput], sample: Sample
) -> None:
    """Compare branches that the sample does not take with PyTorch, in separate engines.

    Raises:
        CheckError: Their outputs differ.
    """
    label = f"{block.name}, in branches that the sample inputs do not take,"
    accept = task.settings.check == "accept"
    for inverted in with_other_branches(block):
        try:
            build_input = input_of(inverted)
            outputs = run_block(inverted, build_input.tensors, sample.inputs)
            other = Sample(sample.inputs, outputs)
            engine, build_input = unchecked_engine(task, build_input, other)
            check_engine(inverted, engine, build_input.image, other, accept=accept, label=label)
        except CheckError:
            raise
        except Exception as err:  # these branches may not support the sample inputs
            logger.info("other branches of %s are not checked: %s", block.name, err)


def _build_one(
    task: EngineTask,
    build_input: BuildInput,
    sample: Sample | None,
    keep: Callable[[FirstRun], None],
) -> Engine:
    started = time.perf_counter()
    settings, block, name = task.settings, build_input.block, task.builder.name
    engine, build_input = unchecked_engine(task, build_input, sample)
    if settings.check != "off":
        accept = settings.check == "accept"
        check = check_engine(block, engine, build_input.image, sample, accept=accept, keep=keep)
        if "skipped" in check and sample and lowered_precision(name, block, settings):
            check = {**check, **simulated_check(engine, build_input, sample, accept=accept)}
        engine = dataclasses.replace(engine, check=check)
    engine = dataclasses.replace(engine, opened=None)
    logger.info(
        "built %s for %s: %d bytes, %s%s, in %.2f s",
        engine.backend,
        block.name,
        len(engine.data),
        engine.build["precision"],
        worst_difference(engine.check),
        time.perf_counter() - started,
    )
    return engine
