"""The contract of a backend. Vendor modules are imported inside methods, never at module top."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import torch

from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Block, Engine
from portrt.engines.base import Session
from portrt.format.manifest import EngineSpec, Manifest
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

if TYPE_CHECKING:
    from portrt.compiler.convert import OnnxModel


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


class Backend(Protocol):
    """One kind of engine."""

    name: str  # also the key that is stored in the manifest

    def can_build(self, settings: Settings | None = None) -> Verdict:
        """Whether engines can be built on this machine. Never raises; names a missing wheel.

        Args:
            settings: Of the engine. The backend's own options may name another builder than the one
                that is installed here.
        """
        ...

    def can_run(self, device: str) -> Verdict:
        """Whether engines can run here on tensors of a device type. Never raises."""
        ...

    def supports(self, node: torch.fx.Node) -> Verdict:
        """Whether a node that torch.onnx translates can be in an engine of this backend."""
        ...

    def build(self, material: BuildInput, settings: Settings) -> Engine:
        """Build the engine of one block.

        Raises:
            BuildError: The builder refused or crashed.
            ConvertError: The block has no ONNX form at the opsets that the builder reads.
        """
        ...

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        """Whether this stored engine may run here on tensors of a device. Never raises."""
        ...

    def open(
        self,
        engine: EngineSpec,
        manifest: Manifest,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,
        lean: bool = False,
    ) -> Session:
        """Make a session of the engine's bytes, whose digest was checked.

        Args:
            engine: The engine's entry.
            manifest: The block.
            data: The engine, 1-D uint8 on the CPU. The session may keep a view of it.
            weights: The weights of the program, likewise.
            device: Where the inputs will be; one that `accepts` took.
            lean: For a single run: little memory counts for more than speed.

        Raises:
            EngineError: The native library refused the engine.
        """
        ...
