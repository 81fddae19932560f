"""Interfaces of the run side: runtimes of engines, and the sessions that they open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from portrt.format.manifest import EngineSpec, Signature
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

# A data-dependent size in the shapes passed to a session.
UNKNOWN = -1


def fits(found: Sequence[int], wanted: Sequence[int]) -> bool:
    """Return whether a shape is the wanted one; UNKNOWN sizes in `wanted` match any."""
    return len(found) == len(wanted) and all(
        size in (UNKNOWN, own) for own, size in zip(found, wanted, strict=True)
    )


@dataclass(frozen=True)
class LayerTime:
    """The time of one layer of an engine.

    Attributes:
        name: The library's name of the layer.
        kind: The library's layer or operator type; empty if it has none.
        seconds: Median time in one call of the engine.
        nodes: Nodes of the block's source that it computes. Empty in a session that knows the
            layer's name alone: `node_names.nodes_of_layer` finds them in it.
        detail: Further description, such as dtype and shape of its outputs.
    """

    name: str
    kind: str
    seconds: float
    nodes: tuple[str, ...] = ()
    detail: str = ""


class Session(ABC):
    """An opened engine. Safe to call from several threads at once.

    Attributes:
        supports_layer_times: Whether `layer_times` is implemented.
        supports_graphs: Whether `graphed` is implemented.
        takes_all_sizes: Whether calls of every size in range run; else `run` may raise
            OutOfProfileError although the block has no optimization profiles.
    """

    supports_layer_times: bool = False
    supports_graphs: bool = False
    takes_all_sizes: bool = True

    @abstractmethod
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

    def graphed(self, max_recordings: int) -> Session:
        """Return the same engine, replayed as CUDA graphs.

        Args:
            max_recordings: Number of recordings that are kept.

        Raises:
            NotImplementedError: `supports_graphs` is False.
        """
        raise NotImplementedError(f"{type(self).__name__} records no CUDA graphs")

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Run with every layer timed; the session itself stays as fast as it was.

        Args:
            inputs: Inputs of the block, checked against the manifest.
            shapes: Shape of each output.
            calls: Number of calls to time, at least 1; warm-up calls come on top.

        Returns:
            The layers, in the order in which they ran.

        Raises:
            NotImplementedError: `supports_layer_times` is False.
        """
        raise NotImplementedError(f"{type(self).__name__} measures no layers")


@dataclass(frozen=True)
class OpenOptions:
    """How an engine is opened.

    Attributes:
        low_memory: Prefer low memory use to speed, for a session that runs once or twice.
        trusted_host_code: Allow host (CPU) code in the engine, which opening it runs. Only the
            active policy permits this, never the file.
    """

    low_memory: bool = False
    trusted_host_code: bool = False


DEFAULT_OPTIONS = OpenOptions()


class EngineRuntime(Protocol):
    """Runs engines of one backend. Vendor modules are imported inside methods only."""

    @property
    def name(self) -> str:
        """The backend's name, also the key that is stored in the manifest."""
        ...

    def can_run(self, device: str) -> Verdict:
        """Check whether engines can run here on tensors of a device type. Never raises."""
        ...

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        """Check whether a stored engine may run here on tensors of a device. Never raises."""
        ...

    def open(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,
        options: OpenOptions = DEFAULT_OPTIONS,
    ) -> Session:
        """Open a session on the engine's bytes, whose digest was checked.

        Args:
            engine: The engine's entry.
            signature: Inputs and outputs of its block.
            data: The engine, 1-D uint8 on the CPU. The session may keep a view of it.
            weights: The weights of the program; the session may keep views of them.
            device: Device of the inputs, one that `accepts` accepted.
            options: Memory use and permissions.

        Raises:
            EngineError: The native library cannot open the engine.
        """
        ...
