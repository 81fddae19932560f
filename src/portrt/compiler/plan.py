"""Immutable data passed between the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from portrt.format.engine_info import EngineInfo
from portrt.format.engine_spec import Blob, EngineSpec, Part, Parts
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
            inputs are the block's inputs in call order, then `weights` in order. Functional.
        weights: Names of the weights in the weights image.
        inputs: Inputs in call order, as the manifest stores them.
        outputs: Outputs in order; a dynamic dimension is a size expression.
        node_count: Number of operator calls in the block.
        is_whole_model: Whether it is all of the model.
        changeable: Those of `weights` that are in the model's state dict: a program may get others.
    """

    name: str
    program: ExportedProgram
    weights: tuple[str, ...]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    node_count: int
    is_whole_model: bool = False
    changeable: frozenset[str] = frozenset()

    @property
    def signature(self) -> Signature:
        """Return the inputs and outputs of the block."""
        return Signature(self.name, self.inputs, self.outputs)

    @property
    def device(self) -> torch.device:
        """Return the device of the block's inputs; that of a stored source is the CPU."""
        placeholder = next(iter(self.program.graph.find_nodes(op="placeholder")))
        device: torch.device = placeholder.meta["val"].device
        return device


@dataclass(frozen=True)
class Plan:
    """Result of the partitioning: a graph with one call per block, and the nodes left to PyTorch.

    Attributes:
        program: The lowered program before partitioning.
        graph_module: Its graph with one `call_module` node per block, named like the block.
        blocks: The blocks, in the order of their calls.
        tensors: Name -> weight, for all blocks.
        left_out: The nodes that stay in PyTorch, each with its reason.
        folded: Names of parameters and buffers whose data became other constants.
    """

    program: ExportedProgram
    graph_module: torch.fx.GraphModule
    blocks: tuple[Block, ...]
    tensors: Mapping[str, torch.Tensor]
    left_out: tuple[FallbackNode, ...]
    folded: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Engine(EngineInfo):
    """One built engine of one block.

    Attributes:
        data: The serialized engine; with `parts` the serialized program that calls them.
        parts: The engines of an engine in parts, or None for one that takes the whole block.
        opened: The bytes that its builder opened, for a single run on the CPU, and the session.
    """

    data: bytes
    parts: EngineParts | None = None
    opened: tuple[bytes, Session] | None = field(default=None, compare=False, repr=False)

    def stored(self, first: int = 0) -> tuple[EngineSpec, list[bytes]]:
        """Return its manifest entry, and the blobs that the entry refers to, from index `first`."""
        blobs = [self.data]
        parts = None
        if self.parts is not None:
            entries = []
            for name, engine in self.parts.engines.items():
                data = Blob.of(first + len(blobs), engine.data)
                entries.append(Part(name, EngineSpec.of(engine, data)))
                blobs.append(engine.data)
            parts = Parts(self.parts.nodes, self.parts.nodes_in_engines, tuple(entries))
        return EngineSpec.of(self, Blob.of(first, self.data), parts), blobs


@dataclass(frozen=True)
class EngineParts:
    """Engines for parts of a block.

    Attributes:
        nodes: Number of operator calls in the block.
        nodes_in_engines: Number of these calls that are in the engines.
        engines: Name of each part -> its engine, in the order of their calls.
        left_out: The nodes that PyTorch runs between them.
    """

    nodes: int
    nodes_in_engines: int
    engines: Mapping[str, Engine]
    left_out: tuple[FallbackNode, ...]
