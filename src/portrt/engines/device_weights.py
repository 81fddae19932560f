"""Weights on the device of a session: the image itself, or one copy on a GPU for all sessions."""

from __future__ import annotations

import weakref

import torch

from portrt.weights import WeightsImage

# (address of the image, name, device) -> the weight on that device, for all engines of a program.
_on_device: weakref.WeakValueDictionary[tuple[int, str, torch.device], torch.Tensor]
_on_device = weakref.WeakValueDictionary()


def weight_on(weights: WeightsImage, name: str, device: torch.device) -> torch.Tensor:
    """Return a weight on a device.

    The caller keeps the image as long as the weight: its address must not be another's meanwhile.
    """
    if device.type == "cpu":
        return weights.tensor(name)
    key = (weights.address, name, device)
    held = _on_device.get(key)
    if held is None:  # of two threads the first one's is kept
        held = _on_device.setdefault(key, weights.tensor(name).to(device))
    return held
