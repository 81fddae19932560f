"""The data of a profile, and its JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from portrt.engines.base import LayerTime
from portrt.files.profiling.page import page
from portrt.files.profiling.source_nodes import SourceNode


@dataclass(frozen=True)
class BlockProfile:
    """One block, or the nodes of the program that are in none.

    Attributes:
        name: Name of the block.
        backend: The backend that ran it, or "eager".
        call_seconds: Median time of a plain call with no layer timed; None for the nodes that are
            in no block, which have no call of their own.
        layers: The layers in the order in which they ran. Their names come from the library that
            ran them, and in part from the file; unprintable characters are escaped.
        nodes: Name of a node of the source -> its operator, module and line.
        reason: Why there are no layers, or none is mapped to nodes; else empty.
    """

    name: str
    backend: str
    call_seconds: float | None
    layers: tuple[LayerTime, ...]
    nodes: Mapping[str, SourceNode]
    reason: str = ""

    @property
    def layers_seconds(self) -> float:
        """Sum of the times of the layers."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def mapped(self) -> float:
        """Share of that sum that is mapped to nodes of the source, from 0 to 1."""
        known = sum(layer.seconds for layer in self.layers if layer.nodes)
        return known / self.layers_seconds if self.layers_seconds else 0.0

    def module_of(self, layer: LayerTime) -> str:
        """Return the path of the innermost module that holds all nodes of a layer."""
        paths = [self.nodes[name].module.split(".") for name in layer.nodes if name in self.nodes]
        shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
        return ".".join(parts[0] for parts in shared)


@dataclass(frozen=True)
class FileProfile:
    """A file on this machine.

    Attributes:
        file: Name of the file, without folders.
        device: Device of the inputs.
        machine: Name of the "device", and the versions of the libraries by name.
        inputs: "name", "dtype", "shape" and "random" (whether it was generated) of each input.
        calls: Number of timed calls; each time is the median over them.
        call_seconds: Median time of a plain call of the whole program.
        blocks: The blocks, in the order of their calls.
        outside: The nodes that run in PyTorch between the blocks.
    """

    file: str
    device: str
    machine: Mapping[str, str]
    inputs: tuple[Mapping[str, Any], ...]
    calls: int
    call_seconds: float
    blocks: tuple[BlockProfile, ...]
    outside: BlockProfile

    @property
    def sections(self) -> tuple[BlockProfile, ...]:
        """The blocks, and `outside` if it has any layer."""
        return (*self.blocks, self.outside) if self.outside.layers else self.blocks

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`; docs/profiling.md describes them."""
        plain = dataclasses.asdict(self)
        for block, entry in zip(
            (*self.blocks, self.outside), (*plain["blocks"], plain["outside"]), strict=True
        ):
            entry |= {"layers_seconds": block.layers_seconds, "mapped": block.mapped}
            for layer, row in zip(block.layers, entry["layers"], strict=True):
                row["module"] = block.module_of(layer)
        return plain

    def to_html(self) -> str:
        """Render a page with bars: one document in UTF-8, without script, that loads nothing."""
        return page(self.to_json())
