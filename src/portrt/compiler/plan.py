"""Immutable data passed between the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from portrt.format.engine_info import EngineInfo
from portrt.format.signature import InputSpec, OutputSpec, Signature

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from portrt.engines.base import Session


@dataclass(frozen=True)
class FallbackNode:
    """A node that stays in PyTorch, with the reason.

    Attributes:
        node: Name of the node.
        target: Name of its operator.
        reason: Reason why it stays in PyTorch.
        remedy: What would change it, or "".
        source: Source line in the user's model, or "".
        module: Path of its module in the model.
        asked: Whether an option of the user keeps it in PyTorch.
    """

    node: str
    target: str
    reason: str
    remedy: str = ""
    source: str = ""
    module: str = ""
    asked: bool = False


@dataclass(frozen=True)
class Block:
    """A group of nodes that is compiled to engines, as a separate program.

    Attributes:
        name: Name of the block, unique in the program.
        program: The nodes before conversion, with weights lifted to trailing user inputs. Its
            inputs are the block's inputs in call order, then `weights` in order. Functional; every
            device is CPU.
        weights: Names of the weights in the weights image.
        inputs: Inputs in call order, as the manifest stores them.
        outputs: Outputs in order; a dynamic dimension is a size expression.
        node_count: Number of operator calls in the block.
    """

    name: str
    program: ExportedProgram
    weights: tuple[str, ...]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    node_count: int

    @property
    def signature(self) -> Signature:
        """Return the inputs and outputs of the block."""
        return Signature(self.name, self.inputs, self.outputs)


@dataclass(frozen=True)
class Plan:
    """Result of the partitioning: a graph with one call per block, and the nodes left to PyTorch.

    Attributes:
        program: The lowered program before partitioning.
        graph_module: Its graph with one `call_module` node per block, named like the block.
        blocks: The blocks, in the order of their calls.
        tensors: Name -> weight, for all blocks.
        left_out: The nodes that stay in PyTorch, each with its reason.
    """

    program: ExportedProgram
    graph_module: torch.fx.GraphModule
    blocks: tuple[Block, ...]
    tensors: Mapping[str, torch.Tensor]
    left_out: tuple[FallbackNode, ...]


@dataclass(frozen=True, kw_only=True)
class Engine(EngineInfo):
    """One built engine of one block.

    Attributes:
        data: The serialized engine.
        opened: The bytes that its builder opened, for a single run on the CPU, and the session.
    """

    data: bytes
    opened: tuple[bytes, Session] | None = field(default=None, compare=False, repr=False)
