"""Captures of CUDA graphs, and waits for a whole device, which must not meet."""

from __future__ import annotations

import threading

import torch

_locks: dict[torch.device, threading.Lock] = {}


def alone_on(device: torch.device) -> threading.Lock:
    """Held while a stream of the device is captured, and while one waits for all of its streams.

    A wait in any thread ends the captures of all, and fails.
    """
    return _locks.setdefault(device, threading.Lock())
