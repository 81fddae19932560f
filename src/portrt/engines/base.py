"""The contract of the run side: sessions. Vendor modules are imported inside methods only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

# In the shapes that a session is given: a size that only the engine finds.
UNKNOWN = -1


def fits(found: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is the one that is wanted, as far as that is known."""
    return len(found) == len(wanted) and all(
        size in (UNKNOWN, own) for own, size in zip(found, wanted, strict=True)
    )


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
            inputs: Inputs of the block, checked against the manifest.
            shapes: Shape of each output.
            calls: Calls to time, at least 1; those that warm up come on top.

        Returns:
            The layers, in the order in which they ran.
        """
        ...
