"""The contract of the build side: what an engine is built from, and what builds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Block, Engine
from portrt.verdict import Verdict

if TYPE_CHECKING:
    from portrt.compiler.convert import OnnxModel

# What a builder reads: `BuildInput.convert`, or `BuildInput.block.program`.
BuilderInput = Literal["onnx", "program"]


class BuildInput:
    """What a backend builds an engine of one block from.

    Args:
        block: The block.
        tensors: The program's weights by name, as the model had them.
        image: The weights image.
        convert: opset -> the block as an ONNX model; remembered, so that two backends share it.
        float32_nodes: Nodes that this conversion leaves in float32 because of their values.
    """

    def __init__(
        self,
        block: Block,
        tensors: Mapping[str, torch.Tensor],
        image: torch.Tensor,
        convert: Callable[[int], OnnxModel],
        float32_nodes: frozenset[str] = frozenset(),
    ) -> None:
        self.block = block
        self.tensors = tensors
        self.image = image
        self.convert = convert
        self.float32_nodes = float32_nodes


class Builder(Protocol):
    """Builds engines of one kind. Vendor modules are imported inside methods only."""

    @property
    def name(self) -> str:
        """The backend's name."""
        ...

    @property
    def input(self) -> BuilderInput:
        """What it reads."""
        ...

    def can_build(self, settings: Settings | None = None) -> Verdict:
        """Whether engines can be built on this machine. Never raises; names a missing wheel.

        Args:
            settings: Of the engine. The backend's own options may name another builder than the one
                that is installed here.
        """
        ...

    def supports(self, node: torch.fx.Node) -> Verdict:
        """Whether a node can be in an engine of this backend.

        A builder that reads ONNX is asked of nodes alone that torch.onnx translates.
        """
        ...

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        """Build the engine of one block.

        Raises:
            BuildError: The builder refused or crashed.
            ConvertError: The block has no ONNX form at the opsets that the builder reads.
        """
        ...
