"""Base of sessions whose work torch enqueues, which CUDA graphs can replace."""

from __future__ import annotations

import torch

from portrt.engines.base import Session


class TorchSession(Session):
    """A session whose work is all on the current stream of its device.

    Args:
        name: Name of the block.
        device: Device of the inputs.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._name = name
        self._device = device
        self.supports_graphs = device.type == "cuda"
        self._graphed: dict[int, Session] = {}

    def graphed(self, max_recordings: int) -> Session:
        """Return this session with up to `max_recordings` CUDA graphs."""
        from portrt.engines.cuda.recorded_run import graphed_run  # no CPU has them

        found = self._graphed.get(max_recordings)
        if found is None:
            made = graphed_run(self, self._device, name=self._name, max_recordings=max_recordings)
            found = self._graphed.setdefault(max_recordings, made)  # of two threads the first one's
        return found
