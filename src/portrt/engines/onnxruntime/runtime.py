"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from portrt.engines.base import DEFAULT_OPTIONS, OpenOptions, Session
from portrt.engines.onnxruntime.session import OnnxRuntimeSession, library_version
from portrt.errors import first_line
from portrt.format.manifest import EngineSpec, Signature
from portrt.targets.backends import BUILT_IN
from portrt.targets.machine import Machine
from portrt.targets.requirements import check_requirements
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

# Operators that end the process, or fail, where a size is 0; seen with 1.23 and 1.32.
_NEED_ELEMENTS = (b"LSTM", b"GRU", b"RNN", b"Attention")


class OnnxRuntimeRuntime:
    """Opens engines of ONNX Runtime, which run on any CPU."""

    name = "onnxruntime"

    def can_run(self, device: str) -> Verdict:
        if device != "cpu":
            return Verdict.no(
                "wrong_device",
                f"it runs on CPU tensors, the inputs are on {device}",
                "use CPU tensors",
            )
        return installed()

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        facts = Machine(versions={self.name: library_version()})
        return check_requirements(self.name, engine.requires, facts, device.type) if able else able

    def open(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,  # noqa: ARG002  (the CPU)
        options: OpenOptions = DEFAULT_OPTIONS,
    ) -> Session:
        session = OnnxRuntimeSession(
            engine, signature, data, weights, low_memory=options.low_memory
        )
        sizes = nonzero_sizes(engine, signature, data)
        if not sizes:
            return session
        from portrt.engines.nonzero_sizes import NonzeroSession  # few engines need it

        return NonzeroSession(session, signature, sizes, "ONNX Runtime")


def nonzero_sizes(engine: EngineSpec, signature: Signature, data: torch.Tensor) -> list[Any]:
    """Return the sizes that must not be 0; for some engines of older files all dynamic ones."""
    known = engine.requires.get("nonzero_sizes")
    if known is not None:
        return list(known)
    model = data.numpy().tobytes()
    if not any(kind in model for kind in _NEED_ELEMENTS):
        return []
    return [
        ["dim", index, axis]
        for index, spec in enumerate(signature.inputs)
        for axis, size in enumerate(spec.shape)
        if not isinstance(size, int)
    ]


def installed() -> Verdict:
    """Check whether ONNX Runtime can be imported, by importing it."""
    try:
        import onnxruntime

        return Verdict.yes(f"ONNX Runtime {onnxruntime.__version__}")
    except Exception as err:
        reason = f"onnxruntime cannot be imported: {type(err).__name__}: {first_line(err)}"
        return Verdict.no("library_missing", reason, BUILT_IN["onnxruntime"].install)
