"""ONNX Runtime on the CPU."""

from __future__ import annotations

import torch

from portrt.engines.base import DEFAULT_OPTIONS, OpenOptions, Session
from portrt.engines.onnxruntime.session import OnnxRuntimeSession, first_line, library_version
from portrt.format.manifest import EngineSpec, Signature
from portrt.targets.backends import BUILT_IN
from portrt.targets.machine import Machine
from portrt.targets.requirements import judge
from portrt.verdict import Verdict
from portrt.weights import WeightsImage


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
        return judge(self.name, engine.requires, facts, device.type) if able else able

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
        return OnnxRuntimeSession(engine, signature, data, weights, low_memory=options.low_memory)


def installed() -> Verdict:
    """Check whether ONNX Runtime can be imported, by importing it."""
    try:
        import onnxruntime

        return Verdict.yes(f"ONNX Runtime {onnxruntime.__version__}")
    except Exception as err:
        reason = f"onnxruntime cannot be imported: {type(err).__name__}: {first_line(err)}"
        return Verdict.no("library_missing", reason, BUILT_IN["onnxruntime"].install)
