"""The contract of the run side: runtimes of engines, and the sessions that they open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from portrt.format.manifest import EngineSpec, Signature
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

# In the shapes that a session is given: a size that only the engine finds.
UNKNOWN = -1


def fits(found: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is the one that is wanted, as far as that is known."""
    return len(found) == len(wanted) and all(
        size in (UNKNOWN, own) for own, size in zip(found, wanted, strict=True)
    )


@dataclass(frozen=True)
class LayerTime:
    """What one layer of an engine costs.

    Attributes:
        name: As the library calls the layer.
        kind: Its layer or operator type, as the library calls it; empty where it has none.
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


class Session(ABC):
    """An opened engine. Safe to call from several threads at once.

    Attributes:
        supports_layer_times: Whether `layer_times` is there.
        supports_graphs: Whether `graphed` is there.
    """

    supports_layer_times: bool = False
    supports_graphs: bool = False

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

    def graphed(self, most: int) -> Session:
        """Return the same engine, replayed as CUDA graphs.

        Args:
            most: Number of recordings that are kept.

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
            calls: Calls to time, at least 1; those that warm up come on top.

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
        low_memory: Prefer little memory to speed: the session runs once or twice.
        trusted_host_code: The engine may bring host (CPU) code, which opening it runs. The policy
            in force decides this, whatever the file says.
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
        """Whether engines can run here on tensors of a device type. Never raises."""
        ...

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        """Whether this stored engine may run here on tensors of a device. Never raises."""
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
        """Make a session of the engine's bytes, whose digest was checked.

        Args:
            engine: The engine's entry.
            signature: What its block takes and returns.
            data: The engine, 1-D uint8 on the CPU. The session may keep a view of it.
            weights: The weights of the program; the session may keep views of them.
            device: Where the inputs will be; one that `accepts` took.
            options: How to open it.

        Raises:
            EngineError: The native library refused the engine.
        """
        ...
