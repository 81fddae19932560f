"""Errors of a failed call, with its sizes, the free memory and TensorRT's log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from portrt.engines.tensorrt.bindings import Port
from portrt.engines.tensorrt.libraries import Library
from portrt.errors import EngineError


def failure(block: str, lib: Library, sizes: Any) -> EngineError:
    """Make the error for sizes or a run that TensorRT rejects."""
    return EngineError(
        f"{lib.name} {lib.version} failed in {block} on inputs of the sizes "
        f"{[tuple(size) for size in sizes] if sizes else sizes}{lib.recent_log()}",
        "inputs for which the engine was built; in a CUDA graph, sizes that ran before",
        "call it once with these sizes before capturing; otherwise report the model",
    )


def out_of_memory(block: str, device: torch.device, bytes_wanted: int) -> EngineError:
    """Make the error for a failed allocation of activations or outputs."""
    free, total = torch.cuda.mem_get_info(device)
    return EngineError(
        f"{block} found too little GPU memory: its activations take "
        f"{bytes_wanted / 2**20:.1f} MiB, {free / 2**20:.0f} of {total / 2**20:.0f} MiB are "
        "free, and torch has no block of that size",
        "memory for the activations and the outputs",
        "free tensors, use smaller inputs, or build with a smaller workspace_size",
    )


def other_shape(block: str, port: Port, found: Sequence[int], wanted: Sequence[int]) -> EngineError:
    """Make the error for an output whose shape is not the manifest's."""
    return EngineError(
        f"the engine of {block} makes {tuple(found)} of output {port.name!r}",
        f"{tuple(wanted)}, as in the manifest",
        "compile the model again; for a plan given to from_plan, correct the output's shape",
    )


def overflow(block: str, inputs: Iterable[Port]) -> EngineError:
    """Make the error for int64 values that do not fit the engine's int32."""
    names = ", ".join(repr(port.name) for port in inputs if port.other_type)
    return EngineError(
        f"this call or an earlier one of {block} was given integers that int32 does not "
        f"hold, in {names}: its outputs are wrong",
        "integers from -2**31 to 2**31 - 1, since the engine has int32 there",
        "use an engine of TensorRT 10 or later, which has int64, or let it run in PyTorch",
    )
