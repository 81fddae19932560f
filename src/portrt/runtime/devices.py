"""Devices by name: one that this machine has, or an error with those that it has."""

from __future__ import annotations

import torch

from portrt.errors import SettingsError


def device_by_name(name: str) -> torch.device:
    """Return a device that tensors can be moved to here.

    Args:
        name: "cpu", "cuda" or "cuda:N".

    Raises:
        SettingsError: There is no such device, or none on this machine.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SettingsError(f"the device is {name!r:.80}", "cpu, cuda or cuda:N", "use one of them")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            why = "is built without CUDA" if torch.version.cuda is None else "finds no GPU"
            raise SettingsError(
                f"the device is {name!r:.80}, and torch {torch.__version__} {why}",
                "cpu",
                "use the device cpu, or a machine with a GPU and a torch that is built for it",
            )
        if (device.index or 0) >= count:
            raise SettingsError(
                f"the device is {name!r:.80}",
                f"one of the {count} GPUs of this machine, cuda:0 to cuda:{count - 1}",
                "use one of them",
            )
    elif (device.index or 0) > 0:
        raise SettingsError(f"the device is {name!r:.80}", "cpu", "leave the number out")
    return device
