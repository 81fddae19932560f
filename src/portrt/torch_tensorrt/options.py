"""Torch-TensorRT's options as those of `portrt.compile`."""

from __future__ import annotations

import difflib
import math
import os
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from portrt.compiler.options.settings import all_options
from portrt.errors import SettingsError, brief
from portrt.torch_tensorrt.devices import Device, torch_device
from portrt.torch_tensorrt.enums import EngineCapability
from portrt.torch_tensorrt.parameters import NO_EFFECT, OLDER, PARAMETERS, REFUSED

_PACKAGE = __package__ or "portrt.torch_tensorrt"

# Arguments of `portrt.compile` that are no options of an engine.
_ARGUMENTS = ("dynamic_shapes", "profiles", "output_format")


class NoEffectWarning(UserWarning):
    """Something of Torch-TensorRT that has no effect in portrt, with what happens instead."""


def warn(text: str) -> None:
    """Give a warning at the caller's line."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, NoEffectWarning, stacklevel=level)


def translated(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `portrt.compile` for options with Torch-TensorRT's names.

    Those of portrt stay as they are. Values without an effect are listed in one warning.

    Raises:
        SettingsError: An option is unknown in both packages, or cannot be had.
    """
    _check_known(given)
    found: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in _with_newer_names(given, ignored).items():
        parameter = PARAMETERS.get(name)
        if parameter is None:
            found[name] = value
        elif parameter.state == REFUSED:
            _require_standard(value)
        elif parameter.state == NO_EFFECT:
            if not parameter.is_default(value):
                ignored.append(f"{name}={brief(value)}: {parameter.here}")
        elif value is not None and name not in _EITHER:
            found |= _MEANINGS[name](value) if name in _MEANINGS else {name: value}
    if ignored:
        warn("options without an effect in portrt: " + "; ".join(ignored))
    return found


def without_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a backend of `torch.compile` takes."""
    return {name: value for name, value in options.items() if name not in _ARGUMENTS}


def keeps_all_in_pytorch(options: Mapping[str, Any]) -> bool:
    """Return whether translated options request that nothing is compiled."""
    return options.get("min_block_size") == math.inf


def device_for(value: Any) -> Any:
    """Return the device that `device=` names; None without one, or where torch has no CUDA."""
    if value is None:
        return None
    import torch

    found = torch_device(value)
    spoken = isinstance(value, str) and value.lower().startswith("dla")
    if spoken or (isinstance(value, Device) and value.dla_core >= 0):
        warn(f"device={value!r}: {PARAMETERS['dla_sram_size'].here}; the GPU is used")
    if found.type == "cuda" and not torch.cuda.is_available():
        warn(f"device={value!r}: torch has no CUDA here, and the model stays where it is")
        return None
    return found


def _is_ours(module: str) -> bool:
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")


def _check_known(given: Collection[str]) -> None:
    known = {*PARAMETERS, *OLDER, *all_options(), *_ARGUMENTS}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise SettingsError(
                f"compile() has no option {name!r}",
                "an option of Torch-TensorRT's compile, or one of portrt.compile",
                f"did you mean {near[0]!r}?" if near else "leave the option out",
            )


def _with_newer_names(given: Mapping[str, Any], ignored: list[str]) -> dict[str, Any]:
    found = dict(given)
    for name in given.keys() & OLDER.keys():
        value = found[name]
        if name in ("make_refittable", "make_refitable", "refit"):
            found.setdefault("immutable_weights", not value)
        elif name == "truncate_long_and_double":
            found.setdefault("truncate_double", value)
        elif name not in ("enabled_precisions", "strict", "use_explicit_typing") and value:
            ignored.append(f"{name}={brief(value)}: {OLDER[name].removeprefix('no effect: ')}")
        if name not in ("enabled_precisions", "strict"):
            del found[name]
    if found.get("enabled_precisions", 0) is None:
        del found["enabled_precisions"]
    return found


def _require_standard(value: Any) -> None:
    if value is None or EngineCapability.try_from(value) is EngineCapability.STANDARD:
        return
    raise SettingsError(
        f"engine_capability is {value}",
        "EngineCapability.STANDARD: no builder makes safety or DLA engines here",
        "leave it out; for an engine that was built elsewhere there is portrt.from_plan",
    )


def _block_size(value: Any) -> dict[str, Any]:
    if isinstance(value, float) and math.isinf(value):
        return {"min_block_size": value}
    return {"min_block_size": 1 if value == 0 and value is not False else value}


def _modules(value: Any) -> dict[str, Any]:
    items = [value] if isinstance(value, (str, type)) else list(value)
    names = [
        f"{item.__module__}.{item.__qualname__}" if isinstance(item, type) else item
        for item in items
    ]
    return {"torch_executed_modules": names} if names else {}


def _operators(name: str) -> Callable[[Any], dict[str, Any]]:
    def operators(value: Any) -> dict[str, Any]:
        several = isinstance(value, Collection) and not isinstance(value, str)
        items = list(value) if several else [value]
        return {name: items} if items else {}

    return operators


def _dryrun(value: Any) -> dict[str, Any]:
    if isinstance(value, (str, os.PathLike)):
        return {"dryrun": True, "report": value}
    return {"dryrun": bool(value)}


def _required(value: Any) -> dict[str, Any]:
    return {"require_engines": True} if value else {}


def _cache_folder(value: Any) -> dict[str, Any]:
    return {"cache_dir": value}


# Name -> the options of portrt for its value; the others keep name and value.
_MEANINGS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "min_block_size": _block_size,
    "torch_executed_ops": _operators("torch_executed_ops"),
    "autocast_excluded_ops": _operators("autocast_excluded_ops"),
    "torch_executed_modules": _modules,
    "pass_through_build_failures": _required,
    "dryrun": _dryrun,
    "engine_cache_dir": _cache_folder,
}
# Nothing is passed on: both values are what happens anyway.
_EITHER = ("assume_dynamic_shape_support", "lazy_engine_init", "attn_bias_is_causal")
