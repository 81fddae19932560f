"""Names of precisions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from portrt.errors import SettingsError

logger = logging.getLogger(__name__)

# The names that ONNX and TensorRT tools use.
PRECISIONS = ("fp16", "bf16")


_SPELLINGS = {
    "fp16": ("fp16", "f16", "float16", "half"),
    "bf16": ("bf16", "bfloat16"),
    "fp32": ("fp32", "f32", "float32", "float"),
}


def precision_name(value: Any) -> str | None:
    """Return "fp16" or "bf16" for a name or a dtype of torch or torch_tensorrt; None for float32.

    Raises:
        SettingsError: The value is none of these.
    """
    name = spelled(value)
    if value is not None and name not in (*PRECISIONS, "fp32"):
        raise SettingsError(
            f"precision is {value!r}",
            "'fp16' or 'bf16', or None for the model's own dtypes",
            "for int8 and fp8 quantize the model, with torchao for example, and compile that",
        )
    return None if name == "fp32" else name


def precision_option(name: str, value: Any) -> str | None:  # noqa: ARG001  (a `Parse`)
    """Parse the value of a precision option; see `precision_name`."""
    return precision_name(value)


def spelled(value: Any) -> str | None:
    """Return "fp16", "bf16" or "fp32" for a name or a dtype of torch or torch_tensorrt, or None."""
    text = str(value).rpartition(".")[2].lower()
    return next((name for name, ways in _SPELLINGS.items() if text in ways), None)


def precision_of_enabled(enabled: Any) -> str | None:
    """Convert Torch-TensorRT's `enabled_precisions` to a precision: the lowest one, or None.

    In Torch-TensorRT the builder chooses among them; here every operator that is not excluded is
    computed in the lowest.
    """
    items: Iterable[Any] = (
        enabled if isinstance(enabled, (set, frozenset, list, tuple)) else [enabled]
    )
    names = {item: spelled(item) for item in items}
    chosen = next((name for name in PRECISIONS if name in names.values()), None)
    if chosen is not None:
        logger.info("enabled_precisions is taken as precision=%r", chosen)
    for item, name in names.items():
        if name is None:
            logger.info(
                "enabled_precisions: %s has no effect; int8 and fp8 come from a quantized model",
                item,
            )
    return chosen
