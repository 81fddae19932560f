"""The enumerations: `dtype`, `memory_format`, `DeviceType`, `EngineCapability`, `Platform`."""

from __future__ import annotations

import platform
from enum import Enum, auto
from typing import Any

import torch

from portrt.errors import SettingsError


class _Convertible(Enum):
    """Base class: `try_from`, `to` and `try_to` between members, torch's objects and names."""

    @classmethod
    def try_from(cls, value: Any) -> Any:
        """Return the member for a member, an object of torch or of another library, or a name.

        Returns:
            None if there is no such member.
        """
        if isinstance(value, cls):
            return value
        for name, given in cls._torch_objects().items():
            if given is value:
                return cls[name]
        name = str(getattr(value, "__name__", value)).rpartition(".")[2].lower()
        known = {key.lower(): member for key, member in cls.__members__.items()}
        return known.get(name)

    def try_to(self, kind: Any, use_default: bool = False) -> Any:  # noqa: ARG002  (as there)
        """Return the object of torch, or the member itself; None if there is none."""
        if kind is type(self):
            return self
        module = str(getattr(kind, "__module__", "")).partition(".")[0]
        return self._torch_objects().get(self.name) if module == "torch" else None

    def to(self, kind: Any, use_default: bool = False) -> Any:
        """Return the object of torch, or the member itself.

        Raises:
            SettingsError: There is none.
        """
        found = self.try_to(kind, use_default)
        if found is None:
            raise SettingsError(
                f"{self} has no counterpart in {kind!r}",
                "a type of torch, such as torch.dtype",
                "convert it with a type of torch",
            )
        return found

    @classmethod
    def _torch_objects(cls) -> dict[str, Any]:
        return {}


class dtype(_Convertible):  # noqa: N801  (Torch-TensorRT's name)
    """Dtypes of inputs, and of `enabled_precisions`."""

    unknown = auto()
    u8 = auto()
    i8 = auto()
    i32 = auto()
    i64 = auto()
    f16 = auto()
    f32 = auto()
    f64 = auto()
    b = auto()
    bf16 = auto()
    f8 = auto()
    f4 = auto()

    uint8 = u8
    int8 = i8
    int32 = i32
    long = i64
    int64 = i64
    half = f16
    fp16 = f16
    float16 = f16
    fp32 = f32
    float32 = f32
    double = f64
    fp64 = f64
    float64 = f64
    bfloat16 = bf16
    float8 = f8
    fp8 = f8
    float4 = f4
    fp4 = f4
    float = f32
    bool = b
    int = i32

    @classmethod
    def _torch_objects(cls) -> dict[str, Any]:
        return {
            "u8": torch.uint8,
            "i8": torch.int8,
            "i32": torch.int32,
            "i64": torch.int64,
            "f16": torch.float16,
            "f32": torch.float32,
            "f64": torch.float64,
            "b": torch.bool,
            "bf16": torch.bfloat16,
            "f8": torch.float8_e4m3fn,
        }


class memory_format(_Convertible):  # noqa: N801  (Torch-TensorRT's name)
    """Memory formats of inputs; engines here take any, as strides of the tensor."""

    linear = auto()
    chw2 = auto()
    hwc8 = auto()
    chw4 = auto()
    chw16 = auto()
    chw32 = auto()
    dhwc8 = auto()
    cdhw32 = auto()
    hwc = auto()
    dla_linear = auto()
    dla_hwc4 = auto()
    hwc16 = auto()
    dhwc = auto()

    contiguous = linear
    channels_last = hwc
    channels_last_3d = dhwc

    @classmethod
    def _torch_objects(cls) -> dict[str, Any]:
        return {
            "linear": torch.contiguous_format,
            "hwc": torch.channels_last,
            "dhwc": torch.channels_last_3d,
        }


class DeviceType(_Convertible):
    """Kinds of accelerators."""

    UNKNOWN = auto()
    GPU = auto()
    DLA = auto()


class EngineCapability(_Convertible):
    """What an engine is restricted to; portrt builds STANDARD engines."""

    STANDARD = auto()
    SAFETY = auto()
    DLA_STANDALONE = auto()


class Platform(_Convertible):
    """Operating systems and processors."""

    LINUX_X86_64 = auto()
    LINUX_AARCH64 = auto()
    WIN_X86_64 = auto()
    WIN_ARM64 = auto()
    UNKNOWN = auto()

    @classmethod
    def current_platform(cls) -> Platform:
        """Return the platform of this machine."""
        arm = platform.machine().lower() in ("aarch64", "arm64")
        pairs = {
            "Linux": (cls.LINUX_X86_64, cls.LINUX_AARCH64),
            "Windows": (cls.WIN_X86_64, cls.WIN_ARM64),
        }
        return pairs.get(platform.system(), (cls.UNKNOWN, cls.UNKNOWN))[arm]
