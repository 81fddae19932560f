"""Releases TensorRT's objects, whose destructors change the current GPU."""

from __future__ import annotations

import sys

import torch


def end_on(device: torch.device, owner: object, attribute: str) -> None:
    """Drop an attribute that holds a TensorRT object, and keep the current GPU.

    Seen: the destructor of an engine or a context makes its own GPU the current one. It may run in
    garbage collection, at any time: also between the steps of a call on another GPU.

    Args:
        device: A CUDA device with its index.
        owner: Object that is being destroyed; its `__del__` calls this.
        attribute: Name of the attribute; it may be missing.
    """
    if sys.is_finalizing():
        return  # the current GPU no longer matters
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return  # a forked process, which cannot use CUDA
    with torch.cuda.device(device):
        vars(owner).pop(attribute, None)
