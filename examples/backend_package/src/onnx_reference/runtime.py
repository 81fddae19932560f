"""Runs engines. A deployed process imports this module, and no compiler."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch

from portrt.engines.base import DEFAULT_OPTIONS, OpenOptions, Session
from portrt.errors import EngineError
from portrt.format.manifest import EngineSpec, Signature
from portrt.targets.machine import Machine
from portrt.targets.requirements import check_requirements
from portrt.verdict import Verdict
from portrt.weights import WeightsImage


class ReferenceRuntime:
    """Runs on any CPU."""

    name = "onnx_reference"

    def can_run(self, device: str) -> Verdict:
        if device != "cpu":
            return Verdict.no("wrong_device", f"it runs on CPU tensors, the inputs are on {device}")
        return installed()

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        facts = Machine(versions={"onnx": onnx_version()})
        return able and check_requirements(self.name, engine.requires, facts, device.type)

    def open(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,
        options: OpenOptions = DEFAULT_OPTIONS,
    ) -> Session:
        try:
            evaluator = evaluator_of(data.numpy().tobytes(), weights)
        except Exception as err:  # whatever the library raises: another engine may run
            raise EngineError(
                f"onnx cannot open the engine of {signature.name}: {err}",
                "an ONNX model of operators that the reference evaluator has",
                "update onnx, or compile the model again",
            ) from err
        return ReferenceSession(evaluator, signature)


class ReferenceSession(Session):
    """An opened engine. The evaluator keeps no state between runs, so threads may share it."""

    def __init__(self, evaluator: Any, signature: Signature) -> None:
        self._evaluator = evaluator
        self._signature = signature
        self._names = [spec.name for spec in signature.inputs]
        self._taken = set(evaluator.input_names)
        self._dtypes = [getattr(torch, spec.dtype) for spec in signature.outputs]

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        feeds = {
            name: tensor.numpy(force=True)
            for name, tensor in zip(self._names, inputs, strict=True)
            if name in self._taken
        }
        try:
            results = self._evaluator.run(None, feeds)
        except Exception as err:
            raise EngineError(
                f"onnx failed in {self._signature.name}: {err}",
                "inputs for which the model itself runs",
                "run the uncompiled model on these inputs; if it works, report the model",
            ) from err
        # Copies: an output must not share memory with an input.
        return [
            torch.tensor(result, dtype=dtype)
            for result, dtype in zip(results, self._dtypes, strict=True)
        ]


def evaluator_of(data: bytes, weights: WeightsImage | None) -> Any:
    """The evaluator of a model, with the program's weights in the place of external data."""
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            assert weights is not None  # the manifest was checked for it
            array = weights.tensor(tensor.name).numpy()
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return ReferenceEvaluator(model)


def installed() -> Verdict:
    """Whether onnx is installed, without importing it."""
    version = onnx_version()
    if not version:
        return Verdict.no("library_missing", "onnx is not installed", "pip install onnx")
    return Verdict.yes(f"onnx {version}")


def onnx_version() -> str:
    """Version of onnx; "" where it is not installed."""
    try:
        return metadata.version("onnx")
    except metadata.PackageNotFoundError:
        return ""
