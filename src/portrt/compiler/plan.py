"""Frozen data that the stages hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from portrt.format.engine_info import EngineInfo
from portrt.format.signature import InputSpec, OutputSpec, Signature

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class FallbackNode:
    """A node that stays in PyTorch, and why.

    Attributes:
        node: Its name.
        target: Its operator.
        reason: Why.
        remedy: What would change it, or "".
        source: The line of the user's model, or "".
        module: The path of its module in the model.
        asked: Whether an option of the user's says so.
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
    """A group of nodes that goes to engines, as a program of its own.

    Attributes:
        name: Unique in the program.
        program: The nodes as they were, weights lifted to trailing user inputs. Its inputs are the
            block's inputs in call order, then `weights` in order. Functional; every device is CPU.
        weights: Names of the weights, as they are named in the weights image.
        inputs: In call order, as the manifest stores them.
        outputs: In order; a dynamic dimension is an expression tree.
        node_count: Operator calls in the block.
    """

    name: str
    program: ExportedProgram
    weights: tuple[str, ...]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    node_count: int

    @property
    def signature(self) -> Signature:
        """What the block takes and returns."""
        return Signature(self.name, self.inputs, self.outputs)


@dataclass(frozen=True)
class Plan:
    """What partition decided: a graph with one call per block, and what stays in PyTorch.

    Attributes:
        program: The lowered program, before anything was cut out of it.
        graph_module: Its graph with one `call_module` node per block, named like the block.
        blocks: The blocks, in the order of their calls.
        tensors: The weights of all blocks by name.
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
        data: The engine itself.
    """

    data: bytes
