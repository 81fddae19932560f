"""Torch-TensorRT's options: those without an effect here, and those that request a precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portrt.compiler.options.precision import precision_of_enabled, spelled
from portrt.errors import SettingsError, brief

# Torch-TensorRT options that have no effect here. They are accepted, so that a call can be ported
# by changing only the import, and logged once with the reason.
WITHOUT_MEANING = {
    "device": "the program runs on the device of its inputs",
    "autocast_excluded_nodes": "name modules or operators in autocast_excluded_modules and _ops",
    "autocast_max_depth_of_reduction": "reductions stay in float32",
    "autocast_calibration_dataloader": "operators are chosen by rule, see `precision`",
    "use_explicit_typing": "engines are always strongly typed",
    "truncate_double": "float64 nodes stay in PyTorch where a backend lacks them",
    "pass_through_build_failures": "a failed engine is left out with its reason",
    "use_fast_partitioner": "there is one partitioner",
    "enable_experimental_decompositions": "the decompositions of torch.onnx are used",
    "assume_dynamic_shape_support": "dynamic shapes are always supported",
    "debug": "use the logger named 'portrt'",
    "lazy_engine_init": "engines are always opened at their first call",
    "make_refittable": "`update_weights` refits engines built with `strip_engine_weights`",
    "offload_module_to_cpu": "engines are built in another process",
}

USE_PYTHON_RUNTIME = "use_python_runtime"


def runtime_of(options: Mapping[str, Any]) -> str | None:
    """Return the runtime that `use_python_runtime` means: "python", "cpp", or None.

    Raises:
        SettingsError: It is neither True nor False nor None.
    """
    given = options.get(USE_PYTHON_RUNTIME)
    if given is None:
        return None
    if type(given) is not bool:
        raise SettingsError(
            f"{USE_PYTHON_RUNTIME} is {brief(given)}", "True, False or None", "give one of them"
        )
    return "python" if given else "cpp"


# Torch-TensorRT's options that request a precision.
PRECISION_SYNONYMS = ("enabled_precisions", "enable_autocast", "autocast_low_precision_type")


def with_precision(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace Torch-TensorRT's options that request a precision by `precision`."""
    found = dict(options)
    enabled, autocast, low_precision = (found.pop(name, None) for name in PRECISION_SYNONYMS)
    chosen = None
    if autocast:
        chosen = spelled(low_precision) or "fp16"  # Torch-TensorRT's default
    elif enabled is not None:
        chosen = precision_of_enabled(enabled)
    return found if chosen is None else {"precision": chosen, **found}
