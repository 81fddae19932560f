"""The end of TensorRT's objects, which belong to a GPU."""

from __future__ import annotations

import sys

import torch


def end_on(device: torch.device, owner: object, attribute: str) -> None:
    """Drop an attribute that holds a TensorRT object, and leave the current GPU the current one.

    Seen: an engine or a context makes its own GPU the current one as it ends. It may end with
    garbage, which is collected at any time: between the steps of a call on another GPU, too.

    Args:
        device: A CUDA device with its index.
        owner: What ends; its `__del__` calls this.
        attribute: Of the owner; it may be missing.
    """
    if sys.is_finalizing():
        return  # nobody needs the current GPU any more
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return  # a forked process, in which there is none
    with torch.cuda.device(device):
        vars(owner).pop(attribute, None)
