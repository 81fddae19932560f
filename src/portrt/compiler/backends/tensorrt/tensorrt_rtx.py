"""Builder of TensorRT-RTX engines; needs no GPU."""

from __future__ import annotations

import torch

from portrt.compiler.backends.base import BuilderInput, BuildInput
from portrt.compiler.backends.tensorrt.build import build_engine, supports
from portrt.compiler.backends.tensorrt.options import TensorRTOptions
from portrt.compiler.convert import NEWEST_OPSET
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.engines.tensorrt.runtime import rtx_installed
from portrt.targets.backends import BUILT_IN
from portrt.verdict import Verdict

_INSTALL = BUILT_IN["tensorrt_rtx"].install
# Compute capabilities of an engine that is built without a target list.
# Source: TensorRT-RTX documentation, "Support matrix"; the builder rejects 9.0 and 10.x.
_DEFAULT_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
# The attention operator of opset 23 becomes a fused layer, which may have no kernel; at opset 22
# attention is matrix products and a softmax.
_OPSETS = (NEWEST_OPSET, 22)


class TensorRTRTXBuilder:
    """Builds on any machine, for RTX GPUs."""

    name = "tensorrt_rtx"
    input: BuilderInput = "onnx"

    def can_build(self, settings: Settings | None = None) -> Verdict:
        if settings is not None and (python := settings.of(TensorRTOptions).builder_python):
            return Verdict.yes(f"{python} builds; whether it can is known only after a build")
        return rtx_installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        return supports(node, self.name)

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        built = build_engine(
            build_input, settings, library=self.name, install=_INSTALL, opsets=_OPSETS, options={}
        )
        options = settings.of(TensorRTOptions)
        targets = options.target_compute_capabilities or _DEFAULT_CAPABILITIES
        return Engine(
            backend=self.name,
            data=built.data,
            build=built.build,
            requires={
                "device": ["cuda"],
                "compute_capabilities": list(targets),
                "tensorrt_rtx": built.result["version"],
            },
            weights=built.weights,
        )
