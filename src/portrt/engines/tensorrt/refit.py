"""Refits weights that an engine was built without, from the weights image, when it is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from portrt.engines.tensorrt.libraries import Library
from portrt.errors import EngineError
from portrt.weights import WeightsImage

# torch's type -> TensorRT's name for it.
_KINDS = {
    torch.float32: "FLOAT",
    torch.float16: "HALF",
    torch.bfloat16: "BF16",
    torch.int8: "INT8",
    torch.int32: "INT32",
    torch.int64: "INT64",
}


@dataclass(frozen=True)
class EngineWeights:
    """The weights of one engine: views of the image, nothing is copied on the CPU.

    Attributes:
        tensors: Name -> contiguous CPU tensor.
    """

    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, names: tuple[str, ...], image: WeightsImage | None) -> EngineWeights:
        """Collect the weights that an engine's entry names.

        Raises:
            PackageError: The image has no such tensor.
        """
        if image is None or not names:
            return cls({})
        return cls({name: image.tensor(name) for name in names})

    @property
    def digest(self) -> str:
        """Digest of names and values.

        Computed, and not taken from the file: programs share an opened engine by it.
        """
        found = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            numbers: Any = tensor.reshape(-1).view(torch.uint8).numpy()
            found.update(memoryview(numbers))
        return found.hexdigest()


def refit(lib: Library, engine: Any, weights: EngineWeights) -> None:
    """Refit an engine that was built without weights.

    Args:
        lib: Library that runs it.
        engine: TensorRT's engine, just deserialized.
        weights: Weights by their names in the ONNX model.

    Raises:
        EngineError: The engine needs other weights, or rejects one; the message names them.
    """
    if not weights.tensors:
        return
    trt = lib.module
    lib.clear_log()
    refitter = trt.Refitter(engine, lib.log)
    wanted = set(refitter.get_all_weights())
    unknown = sorted(wanted - set(weights.tensors))
    if unknown:
        raise EngineError(
            f"the engine lacks the weights {unknown}, which its manifest does not name",
            f"weights among {sorted(weights.tensors)}",
            "build the engine again",
        )
    for name in sorted(wanted):
        tensor = weights.tensors[name]
        kind = getattr(trt.DataType, _KINDS.get(tensor.dtype, ""), None)
        given = None if kind is None else trt.Weights(kind, tensor.data_ptr(), tensor.numel())
        if given is None or not refitter.set_named_weights(name, given):
            raise EngineError(
                f"{lib.name} {lib.version} rejects the weights {name!r} of type and shape "
                f"{tensor.dtype} {list(tensor.shape)}{lib.recent_log()}",
                "weights of the type and the size that the engine was built with",
                "build the engine again",
            )
    if not refitter.refit_cuda_engine():
        raise EngineError(
            f"{lib.name} {lib.version} cannot refit the engine{lib.recent_log()}",
            f"all of {sorted(wanted)}, and enough GPU memory",
            "build the engine again, or without strip_engine_weights",
        )
