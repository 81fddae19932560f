"""`Device`, and the device that example inputs are made on."""

from __future__ import annotations

from typing import Any

import torch

from portrt.errors import SettingsError
from portrt.torch_tensorrt.enums import DeviceType


class Device:
    """A GPU, such as `Device("cuda:0")` or `Device(gpu_id=0)`.

    Args:
        spec: "cuda:0", "gpu:0" or "dla:0"; or leave it out and give `gpu_id`.
        gpu_id: Index of the GPU.
        dla_core: Index of a DLA core. portrt builds for none: see `device` in
            docs/torch_tensorrt.md.
        allow_gpu_fallback: Whether a DLA may leave layers to its GPU.
        device_type: Kind of the device.

    Attributes:
        gpu_id: Index of the GPU.
        dla_core: Index of the DLA core, or -1.
        allow_gpu_fallback: As given.
        device_type: `DeviceType.GPU` or `DeviceType.DLA`.

    Raises:
        SettingsError: The text is no device, or nothing was given.
    """

    def __init__(
        self,
        spec: str | None = None,
        *,
        gpu_id: int | None = None,
        dla_core: int | None = None,
        allow_gpu_fallback: bool = False,
        device_type: Any = None,
    ) -> None:
        self.allow_gpu_fallback = allow_gpu_fallback
        if spec is None and gpu_id is None and dla_core is None:
            raise _no_device("nothing")
        kind, _, index = str(spec or "cuda").lower().partition(":")
        if kind not in ("cuda", "gpu", "dla") or (index and not index.isdecimal()):
            raise _no_device(repr(spec))
        if kind == "dla":
            self.gpu_id, self.dla_core = gpu_id or 0, int(index or 0)
        else:
            self.gpu_id = int(index) if index else gpu_id or 0
            self.dla_core = -1 if dla_core is None else dla_core
        found = DeviceType.DLA if self.dla_core >= 0 else DeviceType.GPU
        self.device_type = DeviceType.try_from(device_type) or found

    def to(self, kind: type) -> torch.device:
        """Return the device of torch; `kind` is `torch.device`."""
        if kind is not torch.device:
            raise SettingsError(f"to({kind!r}) of a Device", "torch.device", "give torch.device")
        return torch.device("cuda", self.gpu_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Device(type={self.device_type}, gpu_id={self.gpu_id}, dla_core={self.dla_core})"

    def _key(self) -> tuple[Any, ...]:
        return self.device_type, self.gpu_id, self.dla_core, self.allow_gpu_fallback


def torch_device(value: Any) -> torch.device:
    """Return the device of torch for a `Device`, a device of torch, or a text.

    Raises:
        SettingsError: The value is none of these.
    """
    if isinstance(value, str) and value.partition(":")[0].lower() in ("gpu", "dla"):
        value = Device(value)
    if isinstance(value, Device):
        return value.to(torch.device)
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as err:
        raise _no_device(repr(value)) from err


def _no_device(given: str) -> SettingsError:
    return SettingsError(
        f"{given} was given as a device",
        "a device such as 'cuda:0', torch.device('cuda'), or Device(gpu_id=0)",
        "name a device",
    )
