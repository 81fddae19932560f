"""Keeps captures of CUDA graphs and waits for a whole device apart."""

from __future__ import annotations

import threading

import torch

_locks: dict[torch.device, threading.Lock] = {}


def alone_on(device: torch.device) -> threading.Lock:
    """Return the lock to hold while capturing a stream, or synchronizing the whole device.

    Synchronizing a device in any thread invalidates the captures of all threads, and fails.
    """
    return _locks.setdefault(device, threading.Lock())
