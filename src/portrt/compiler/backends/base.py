"""Interface of builders, and the input of a build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Block, Engine
from portrt.errors import BuildError
from portrt.verdict import Verdict

if TYPE_CHECKING:
    from portrt.compiler.convert import OnnxModel

# Input format of a builder: `BuildInput.convert`, or `BuildInput.block.program`.
BuilderInput = Literal["onnx", "program"]


class Convert(Protocol):
    """Returns a block as an ONNX model of an opset, with small weights apart if that is wanted."""

    def __call__(self, opset: int, small_apart: bool = ..., /) -> OnnxModel: ...


class RefusedNodesError(BuildError):
    """A builder refuses nodes of a block.

    Attributes:
        nodes: Names of ONNX nodes: all that are known, of which the text may name a few.
    """

    def __init__(
        self, happened: str, expected: str, remedy: str, nodes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(happened, expected, remedy)
        self.args = (happened, expected, remedy, nodes)
        self.nodes = nodes


class BuildInput:
    """Input for building an engine of one block.

    Args:
        block: The block.
        tensors: Name -> weight of the program, in the model's dtypes.
        image: The weights image.
        convert: Makes the block an ONNX model; cached, so that several backends share the result.
        float32_nodes: Nodes that the conversion keeps in float32 because of large values.
    """

    def __init__(
        self,
        block: Block,
        tensors: Mapping[str, torch.Tensor],
        image: torch.Tensor,
        convert: Convert,
        float32_nodes: frozenset[str] = frozenset(),
    ) -> None:
        self.block = block
        self.tensors = tensors
        self.image = image
        self.convert = convert
        self.float32_nodes = float32_nodes


class Builder(Protocol):
    """Builds engines of one backend. Vendor modules are imported inside methods only."""

    @property
    def name(self) -> str:
        """Return the name of the backend."""
        ...

    @property
    def input(self) -> BuilderInput:
        """Return its input format."""
        ...

    def can_build(self, settings: Settings | None = None) -> Verdict:
        """Return whether engines can be built on this machine; never raises.

        The reason of a no names a missing package.

        Args:
            settings: Settings of the engine. The backend's own options may name another builder
                than the installed one.
        """
        ...

    def supports(self, node: torch.fx.Node) -> Verdict:
        """Return whether a node can be in an engine of this backend.

        For a builder that reads ONNX, it is called only with nodes that torch.onnx translates.
        """
        ...

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        """Build the engine of one block.

        Raises:
            BuildError: The builder rejected the block or crashed.
            ConvertError: The block has no ONNX form at the opsets that the builder reads.
        """
        ...
