"""Building of an engine in parts: the engines of a cut, and the program that calls them."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from portrt.compiler.building.at_fault import nodes_at_fault, operator_names, verdict_of
from portrt.compiler.building.check import FirstRun, Sample, check_engine, run_in_pytorch
from portrt.compiler.building.engines import Failure, engine_builder
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.package.assemble import archive_of, assemble
from portrt.compiler.parts.cut import (
    Translated,
    cut_block,
    nodes_in_parts,
    reasons,
    weight_placeholders,
)
from portrt.compiler.plan import Block, Engine, EngineParts, Plan
from portrt.errors import BuildError, ConvertError
from portrt.format.engine_spec import in_parts
from portrt.targets.versions import numbers
from portrt.verdict import Verdict

logger = logging.getLogger(__name__)

# Number of cuts that leave out single nodes after a failure; later ones leave out whole parts.
_MAX_CUTS = 8
# Fields of `build` that are those of every part.
_SHARED = (
    *("library", "version", "numerics", "precision", "precision_reason", "autocast"),
    *("os", "arch", "driver", "driver_cuda"),
)


def engine_in_parts(
    task: EngineTask,
    block: Block,
    tensors: Mapping[str, torch.Tensor],
    image: torch.Tensor,
    sample: Sample | None,
    translated: Translated,
    keep: Callable[[FirstRun], None] = lambda _: None,
) -> Engine:
    """Build an engine in parts of a block that the task's backend does not take whole.

    Nodes that a build refuses are added to `task.refused`, and the block is cut again.

    Args:
        task: The engine to build.
        block: The block.
        tensors: Name -> weight of the program.
        image: The weights image of the program.
        sample: Inputs and outputs of the block in PyTorch; None leaves the engine unchecked.
        translated: Returns whether a node has a translation to ONNX.
        keep: Takes the opened engine and its run.

    Raises:
        BuildError: No part of the block can be in such an engine.
        CheckError: The outputs of an engine differ from PyTorch's.
    """
    known: dict[Any, Engine] = {}  # parts that a new cut has again
    for cuts in itertools.count(1):
        plan = cut_block(task, block, tensors, translated)
        if not plan.blocks:
            raise BuildError(
                f"{task.builder.name} takes nothing of {block.name}: {reasons(plan.left_out)}",
                f"at least {task.settings.min_block_size} operators of it that it can hold",
                f"lower min_block_size, or leave {task.builder.name} out of engines",
            )
        samples: Mapping[str, Sample] = {}
        if sample is not None:
            held = [tensors[name] for name in block.weights]
            samples = _samples(plan, [*sample.inputs, *held])
        engines: dict[str, Engine] = {}
        failed: dict[str, Verdict] = {}
        for part in plan.blocks:
            key = _identity(part)
            try:
                if key not in known:
                    build = engine_builder(tensors, part, image, task.settings.translations)
                    known[key] = build(task, samples.get(part.name), lambda _: None)
                engines[part.name] = known[key]
            except (BuildError, ConvertError) as err:
                failed |= _refused(task, part, err, whole=cuts >= _MAX_CUTS)
        if not failed:
            break
        task.refused.update(failed)
    engine = _composed(task, block, plan, engines)
    logger.warning(
        "%s takes %s %s: %s",
        task.builder.name,
        block.name,
        in_parts(len(engines), nodes_in_parts(block, plan), block.node_count),
        reasons(plan.left_out),
    )
    return dataclasses.replace(engine, check=_check(task, block, engine, image, sample, keep))


def _refused(task: EngineTask, part: Block, err: Failure, *, whole: bool) -> dict[str, Verdict]:
    names = operator_names(part)
    found = names if whole else nodes_at_fault(part, [err]) or names
    logger.warning(
        "%s of the %d operators of %s are in no %s engine, and the block is cut again: %s",
        "all" if found == names else ", ".join(sorted(found)),
        len(names),
        part.name,
        task.builder.name,
        err,
    )
    return dict.fromkeys(found, verdict_of([err]))


def _identity(part: Block) -> Any:
    nodes = tuple((node.name, node.op) for node in part.program.graph.nodes)
    return nodes, part.weights, tuple(map(repr, (*part.inputs, *part.outputs)))


def _composed(task: EngineTask, block: Block, plan: Plan, engines: Mapping[str, Engine]) -> Engine:
    """Put the engines of a cut together."""
    nodes_in_engines, left_out = nodes_in_parts(block, plan), plan.left_out
    # The program's calls name the parts; their engines, and so their weights, are the block's.
    weightless = [dataclasses.replace(part, weights=()) for part in plan.blocks]
    plan = dataclasses.replace(plan, blocks=tuple(weightless))
    weights = dict(zip(weight_placeholders(block), block.weights, strict=True))
    program = assemble(
        plan,
        None,
        dict.fromkeys(engines, ()),
        {"fallback": None},
        with_sources=False,
        positional_weights=weights,
    )
    taken = [node.name for node in program.graph.nodes if node.op == "placeholder"]
    made = list(engines.values())
    build = {key: made[0].build[key] for key in _SHARED if key in made[0].build}
    flags = dict.fromkeys(flag for engine in made for flag in engine.build.get("flags", ()))
    return Engine(
        backend=task.builder.name,
        data=archive_of(program),
        build={
            **build,
            "flags": list(flags),
            "seconds": round(sum(engine.build.get("seconds", 0) for engine in made), 3),
        },
        requires=merged_requirements([engine.requires for engine in made]),
        weights=tuple(weights[name] for name in taken if name in weights),
        parts=EngineParts(block.node_count, nodes_in_engines, dict(engines), left_out),
    )


def merged_requirements(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the requirements of several engines of one build together.

    A machine must be in the lists of each, and have the newest of the oldest versions. Sizes that
    must not be 0 are those of a part's inputs, and stay with the part.
    """
    found: dict[str, Any] = {}
    keys = dict.fromkeys(key for requires in every for key in requires)
    keys.pop("nonzero_sizes", None)
    for key in keys:
        values = [requires[key] for requires in every if key in requires]
        if isinstance(values[0], list):
            found[key] = [item for item in values[0] if all(item in other for other in values)]
        elif isinstance(values[0], bool):
            found[key] = any(values) if key == "host_code" else all(values)
        else:
            found[key] = max(values, key=lambda text: numbers(str(text)))
    return found


def _samples(plan: Plan, flat: Sequence[torch.Tensor]) -> Mapping[str, Sample]:
    try:
        return run_in_pytorch(plan, flat).samples
    except Exception:
        logger.warning("parts are not checked: they fail on the sample", exc_info=True)
        return {}


def _check(
    task: EngineTask,
    block: Block,
    engine: Engine,
    image: torch.Tensor,
    sample: Sample | None,
    keep: Callable[[FirstRun], None],
) -> Mapping[str, Any] | None:
    """Compare the whole with PyTorch; if it cannot run here, return the checks of its parts."""
    if task.settings.check == "off":
        return None
    label = f"the {engine.backend} engine in parts of {block.name}"
    accept = task.settings.check == "accept"
    check = check_engine(block, engine, image, sample, accept=accept, label=label, keep=keep)
    assert engine.parts is not None
    checks = {name: part.check or {} for name, part in engine.parts.engines.items()}
    simulated = [
        {**row, "name": f"{name}.{row['name']}"}
        for name, found in checks.items()
        if isinstance(found.get("simulated"), list)
        for row in found["simulated"]
    ]
    return {**check, "simulated": simulated} if simulated and "skipped" in check else check
