"""Builds engines. A process that compiles imports this module, a deployed one does not."""

from __future__ import annotations

import torch

from onnx_reference.options import ReferenceOptions
from onnx_reference.runtime import evaluator_of, installed, onnx_version
from portrt.compiler.backends.base import BuilderInput, BuildInput
from portrt.compiler.backends.support import supports_dtypes
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.errors import BuildError
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

_DTYPES = frozenset({torch.bool, torch.int32, torch.int64, torch.float32, torch.float64})


class ReferenceBuilder:
    """Builds anywhere: the engine is the ONNX model, its weights stay in the file."""

    name = "onnx_reference"
    input: BuilderInput = "onnx"

    def can_build(self, settings: Settings | None = None) -> Verdict:
        return installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        return supports_dtypes(node, _DTYPES, self.name)

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        model = build_input.convert(settings.of(ReferenceOptions).reference_opset)
        try:  # refuses operators that the evaluator lacks
            evaluator_of(model.data, WeightsImage(build_input.image))
        except Exception as err:
            raise BuildError(
                f"onnx_reference refuses {build_input.block.name}: {err}",
                "operators that onnx's reference evaluator has",
                "name the operator in torch_executed_ops, or leave onnx_reference out of engines",
            ) from err
        return Engine(
            backend=self.name,
            data=model.data,
            build={"library": "onnx", "version": onnx_version(), "opset": model.opset, "flags": []},
            requires={"device": ["cpu"], "onnx": "1.16"},
            weights=model.weights,
        )
