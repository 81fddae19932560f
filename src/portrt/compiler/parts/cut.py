"""Cut of a block for one backend: parts for its engines, and the rest for PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache

import torch

from portrt import torch_internals
from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.convert import translation
from portrt.compiler.convert.translations import resolved
from portrt.compiler.options.settings import Settings
from portrt.compiler.partition import partition
from portrt.compiler.plan import Block, FallbackNode, Plan
from portrt.format.dimensions import Dimension
from portrt.graphs import control_flow, nested
from portrt.graphs.symbols import ProfileRanges
from portrt.torch_internals.programs import positional_call_graph
from portrt.verdict import Verdict

# Whether a node has a translation to ONNX.
Translated = Callable[[torch.fx.Node], Verdict]


def translated_by(settings: Settings) -> Translated:
    """Return a function that returns whether a node has a translation to ONNX."""
    extra = resolved(settings.translations)

    @cache
    def translated(node: torch.fx.Node) -> Verdict:
        return translation(node, translations=extra)

    return translated


def cut_block(
    task: EngineTask, block: Block, tensors: Mapping[str, torch.Tensor], translated: Translated
) -> Plan:
    """Cut a block into parts that a task's engines can hold, and nodes for PyTorch.

    As `min_block_size` does not apply to a whole model, its largest part is always one.

    Args:
        task: The task.
        block: The block; not modified.
        tensors: Name -> weight of the program.
        translated: Returns whether a node has a translation to ONNX.

    Returns:
        A plan of the block's program, which takes the block's inputs and its weights.
    """
    plan = _cut(task, block, tensors, translated, task.settings.min_block_size)
    if plan.blocks or not block.is_whole_model:
        return plan
    every = _cut(task, block, tensors, translated, 1).blocks
    largest = max((part.node_count for part in every), default=0)
    return _cut(task, block, tensors, translated, largest) if largest else plan


def _cut(
    task: EngineTask,
    block: Block,
    tensors: Mapping[str, torch.Tensor],
    translated: Translated,
    min_block_size: int,
) -> Plan:
    old = block.program
    module = nested.copied(old.graph_module)
    call_graph = positional_call_graph(old.graph_signature)
    program = torch_internals.program_from_graph(
        old, module, old.graph_signature, {}, {}, call_graph
    )
    names = zip(weight_placeholders(block), block.weights, strict=True)
    weights = {own: (name, tensors[name]) for own, name in names}
    settings = dataclasses.replace(
        task.settings, require_full_compilation=False, min_block_size=min_block_size
    )
    ranges = _profile_ranges(block, control_flow.placeholders(module))
    plan = partition(
        program,
        settings,
        lambda node: task.supports(node, translated),
        profile_ranges=ranges,
        weights=weights,
    )
    parts = [
        dataclasses.replace(part, changeable=block.changeable & {*part.weights})
        for part in plan.blocks
    ]
    return dataclasses.replace(plan, blocks=tuple(parts))


def weight_placeholders(block: Block) -> list[str]:
    """Return the names of the placeholders of a block's weights, in their order."""
    placeholders = control_flow.placeholders(block.program.graph_module)
    return [node.name for node in placeholders[len(block.inputs) :]]


def _profile_ranges(block: Block, placeholders: list[torch.fx.Node]) -> ProfileRanges:
    """Return symbol -> (min, opt, max) in each profile, from the block's inputs."""
    found = {}
    for spec, node in zip(block.inputs, placeholders, strict=False):  # weights follow
        for size, value in zip(spec.shape, node.meta["val"].shape, strict=True):
            if isinstance(size, Dimension) and size.max is not None:
                symbol = torch_internals.expression_of(value)
                found[symbol] = size.profiles or ((size.min, size.opt, size.max),)
    return found


def nodes_in_parts(block: Block, plan: Plan) -> int:
    """Return the number of a block's operator calls that are in the parts of a cut."""
    return block.node_count - sum(item.target != "getitem" for item in plan.left_out)


def reasons(left_out: tuple[FallbackNode, ...], limit: int = 3) -> str:
    """Describe in one line which operators stay in PyTorch, and why."""
    groups: dict[str, list[str]] = {}
    for item in left_out:
        if item.target != "getitem":
            groups.setdefault(item.reason, []).append(item.target)
    lines = []
    for reason, targets in list(groups.items())[:limit]:
        named = ", ".join(list(dict.fromkeys(targets))[:limit])
        more = f" and {len(set(targets)) - limit} more" if len(set(targets)) > limit else ""
        lines.append(f"{named}{more}: {reason}")
    rest = len(groups) - limit
    return "; ".join(lines) + (f"; and {rest} other reasons" if rest > 0 else "")
