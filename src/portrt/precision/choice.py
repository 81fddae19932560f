"""Precision: in which dtype an engine computes what the model has in float32."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from portrt.errors import SettingsError

if TYPE_CHECKING:
    from portrt.artifacts import Block

logger = logging.getLogger(__name__)

# The names that ONNX and TensorRT tools use.
PRECISIONS = ("fp16", "bf16")

_SPELLINGS = {
    "fp16": ("fp16", "f16", "float16", "half"),
    "bf16": ("bf16", "bfloat16"),
    "fp32": ("fp32", "f32", "float32", "float"),
}

# (backend, precision) -> why its engines stay in float32.
KEPT_IN_FLOAT32 = {
    ("onnxruntime", "bf16"): "ONNX Runtime has no bfloat16 kernels for a CPU",
}


def precision_name(value: Any) -> str | None:
    """ "fp16" or "bf16" for these names, torch's dtypes and torch_tensorrt's; None for float32.

    Raises:
        SettingsError: It is none of these.
    """
    name = spelled(value)
    if value is not None and name not in (*PRECISIONS, "fp32"):
        raise SettingsError(
            f"precision is {value!r}",
            "'fp16' or 'bf16', or None for the model's own dtypes",
            "for int8 and fp8 quantize the model, with torchao for example, and compile that",
        )
    return None if name == "fp32" else name


def spelled(value: Any) -> str | None:
    """ "fp16", "bf16" or "fp32" for a dtype of torch or of torch_tensorrt, or a name; else None."""
    text = str(value).rpartition(".")[2].lower()
    return next((name for name, ways in _SPELLINGS.items() if text in ways), None)


def precision_of_enabled(enabled: Any) -> str | None:
    """What Torch-TensorRT's `enabled_precisions` comes to here: the lowest one, if any.

    There the builder chooses among them; here what is not excluded is computed in the lowest.
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


def reason_for_float32(backend: str, precision: str | None) -> str:
    """Why an engine of this backend stays in float32 although it was asked for less, or ""."""
    return "" if precision is None else KEPT_IN_FLOAT32.get((backend, precision), "")


def precision_of_block(block: Block) -> str:
    """The floating-point and quantized dtypes that a block computes in, such as "fp32+int8"."""
    import torch

    from portrt.graphs import nested

    names = {
        torch.float64: "fp64",
        torch.float32: "fp32",
        torch.bfloat16: "bf16",
        torch.float16: "fp16",
        torch.float8_e4m3fn: "fp8",
    }
    every = nested.all_nodes(block.program.graph_module)
    nodes = [node for node in every if node.op == "call_function"]
    values = [node.meta.get("val") for node in nodes]  # what computes: a quantizer may have float64
    dtypes = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    found = [name for dtype, name in names.items() if dtype in dtypes]
    if any("quantize" in str(node.target) for node in nodes):
        found += ["int8"] if dtypes & {torch.int8, torch.uint8} else []
    elif any(map(_rounds_to_int8, nodes)):
        found += ["int8"]
    return "+".join(found) or "integer"


def _rounds_to_int8(node: Any) -> bool:
    """Whether a node takes a float tensor and gives int8, as quantizers in plain arithmetic do."""
    import torch

    taken = [source.meta.get("val") for source in node.all_input_nodes]
    made = node.meta.get("val")
    return getattr(made, "dtype", None) == torch.int8 and any(
        isinstance(value, torch.Tensor) and value.is_floating_point() for value in taken
    )
