"""The contract of a backend. Vendor modules are imported inside methods, never at module top."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from portrt.artifacts import Block, Engine, Verdict
from portrt.backends.quantized import converts
from portrt.graphs import spectral
from portrt.package.manifest import EngineSpec, Manifest
from portrt.package.weights import WeightsImage
from portrt.precision.narrow_dtypes import NARROW
from portrt.settings import Settings

if TYPE_CHECKING:
    from portrt.convert import OnnxModel


class Material:
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


class Session(Protocol):
    """An opened engine. Safe to call from several threads at once."""

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once.

        Args:
            inputs: Checked against the manifest: number, dtype, shape and device. Never written.
            shapes: Shape of each output.

        Returns:
            New tensors that share no memory with the inputs.
        """
        ...


@runtime_checkable
class GraphableSession(Session, Protocol):
    """A session that can be recorded as CUDA graphs."""

    def graphed(self, most: int) -> Session:
        """The same engine, replayed; with at most so many recordings."""
        ...


@dataclass(frozen=True)
class LayerTime:
    """What one layer of an engine costs.

    Attributes:
        name: As the library calls the layer.
        kind: Its layer or operator type, likewise; empty where the library tells none.
        seconds: Median time in one call of the engine.
        nodes: Nodes of the block's source that it computes. A session that knows no more of them
            than the layer's name leaves them empty: `layer_names.nodes_of_layer` reads that.
        detail: What else is known of it, such as what it returns.
    """

    name: str
    kind: str
    seconds: float
    nodes: tuple[str, ...] = ()
    detail: str = ""


@runtime_checkable
class ProfiledSession(Session, Protocol):
    """A session that can tell what its layers cost."""

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Run with every layer timed; the session itself stays as fast as it was.

        Args:
            inputs: As for `run`.
            shapes: As for `run`.
            calls: Calls to time, at least 1; those that warm up come on top.

        Returns:
            The layers, in the order in which they ran.
        """
        ...


class Backend(Protocol):
    """One kind of engine."""

    name: str  # also the key that is stored in the manifest

    def can_build(self, python: str | None = None) -> Verdict:
        """Whether engines can be built on this machine. Never raises; names a missing wheel.

        Args:
            python: Interpreter that is to run the builder, for a library that is installed there;
                None is this one.
        """
        ...

    def can_run(self, device: str) -> Verdict:
        """Whether engines can run here on tensors of a device type. Never raises."""
        ...

    def supports(self, node: torch.fx.Node) -> Verdict:
        """Whether a node that torch.onnx translates can be in an engine of this backend."""
        ...

    def build(self, material: Material, settings: Settings) -> Engine:
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


# What a complex tensor consists of, within an engine.
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def tensors_of(node: torch.fx.Node) -> list[torch.Tensor]:
    """The fake tensors that a node takes and returns."""
    values = [node.meta.get("val"), *(source.meta.get("val") for source in node.all_input_nodes)]
    flat = [
        item
        for value in values
        for item in (value if isinstance(value, (list, tuple)) else [value])
    ]
    return [item for item in flat if isinstance(item, torch.Tensor)]


def supports_dtypes(node: torch.fx.Node, dtypes: frozenset[torch.dtype], name: str) -> Verdict:
    """No for a node with a dtype that the backend lacks.

    What a node quantizes to, or takes to dequantize, is no arithmetic in int8 or float8.
    """
    quantizes = isinstance(node.target, torch._ops.OpOverload) and (
        node.target.namespace == "quantized_decomposed"
    )
    passed: frozenset[torch.dtype] = frozenset()
    if quantizes:
        passed = frozenset({torch.int8, torch.float64})  # per-channel scales
    elif converts(node):
        passed = NARROW
    for tensor in tensors_of(node):
        if _REAL.get(tensor.dtype) in dtypes and spectral.is_inside(node):
            continue
        if tensor.dtype not in dtypes and tensor.dtype not in passed:
            dtype = str(tensor.dtype).removeprefix("torch.")
            remedy = f"use another dtype there, or leave {name} out of engines"
            return Verdict(False, f"{name} has no {dtype}", remedy)
    return Verdict(True)
