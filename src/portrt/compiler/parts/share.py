"""How much of a block each of its engines has, built or planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from portrt.compiler.building.tasks import EngineTask
from portrt.compiler.parts.cut import Translated, cut_block, nodes_in_parts
from portrt.compiler.plan import Block, Engine, FallbackNode, Plan
from portrt.errors import PartitionError


@dataclass(frozen=True)
class Share:
    """What an engine of a block has of it.

    Attributes:
        backend: Its backend.
        parts: Number of its parts; 0 for an engine of the whole block.
        nodes_in_engines: Number of the block's operator calls that it has.
        left_out: The nodes that PyTorch runs between its parts.
    """

    backend: str
    parts: int
    nodes_in_engines: int
    left_out: tuple[FallbackNode, ...] = ()

    @classmethod
    def of(cls, block: Block, engine: Engine) -> Share:
        """Return the share of a built engine."""
        parts = engine.parts
        if parts is None:
            return cls(engine.backend, 0, block.node_count)
        return cls(engine.backend, len(parts.engines), parts.nodes_in_engines, parts.left_out)


def shares_of_plan(
    plan: Plan, tasks: Sequence[EngineTask], translated: Translated
) -> dict[str, list[Share]]:
    """Return name of a block -> the shares of engines that could be built, if no build fails."""
    return {
        block.name: [
            share
            for task in tasks
            if (share := _planned(task, block, plan.tensors, translated)) is not None
        ]
        for block in plan.blocks
    }


def _planned(
    task: EngineTask, block: Block, tensors: Mapping[str, torch.Tensor], translated: Translated
) -> Share | None:
    if not task.refusals(block.program.graph_module, translated):
        return Share(task.builder.name, 0, block.node_count)
    cut = cut_block(task, block, tensors, translated)
    if not cut.blocks:
        return None
    count = nodes_in_parts(block, cut)
    return Share(task.builder.name, len(cut.blocks), count, cut.left_out)


def left_of(shares: Sequence[Share]) -> tuple[FallbackNode, ...]:
    """Return what the engine that has most of a block leaves to PyTorch."""
    best = max(shares, key=lambda share: share.nodes_in_engines, default=None)
    return () if best is None or not best.parts else best.left_out


def require_whole(shares: Mapping[str, Sequence[Share]]) -> None:
    """Raise PartitionError if no engine of a block has all of it."""
    left = {name: left_of(found) for name, found in shares.items()}
    lines = [
        f"    {item.node} ({item.target}): {item.reason}"
        for items in left.values()
        for item in items
    ]
    if lines:
        count = len(lines)
        raise PartitionError(
            f"{count} nodes stay in PyTorch, with the engines that have most of the model:\n"
            + "\n".join(lines),
            "every node in an engine, as require_full_compilation=True requires",
            "change the model, or compile with require_full_compilation=False",
        )
