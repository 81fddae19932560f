"""Builder of ONNX Runtime engines: an engine is a small ONNX graph over the shared weights."""

from __future__ import annotations

import platform
import time

import torch

from portrt.compiler.backends.base import BuilderInput, BuildInput
from portrt.compiler.backends.onnxruntime.limits import (
    SAFE_DIVISION,
    divides_integers,
    matches_pytorch,
)
from portrt.compiler.backends.support import supports_dtypes
from portrt.compiler.convert import NEWEST_OPSET
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.engines.onnxruntime.native import left_alone, open_session
from portrt.engines.onnxruntime.runtime import installed
from portrt.engines.onnxruntime.session import first_line, library_version
from portrt.errors import BuildError
from portrt.graphs import nested
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

# The oldest release that reads opset 23; also the minimum in the package's requirements.
_OLDEST = "1.23"
_DTYPES = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    }
)


class OnnxRuntimeBuilder:
    """Builds on any machine that has ONNX Runtime."""

    name = "onnxruntime"
    input: BuilderInput = "onnx"

    def can_build(self, settings: Settings | None = None) -> Verdict:  # noqa: ARG002
        return installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        verdict = supports_dtypes(node, _DTYPES, self.name)
        return verdict and matches_pytorch(node, library_version())

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:  # noqa: ARG002
        started = time.perf_counter()
        model = build_input.convert(NEWEST_OPSET)
        data, flags = model.data, []
        if _has_bfloat16(build_input):
            from portrt.compiler.backends.onnxruntime.rewrites.widen_bfloat16 import widen_bfloat16

            data = widen_bfloat16(data)
            flags.append("bfloat16 computed in float32")
        from portrt.compiler.backends.onnxruntime.rewrites.fuse_transposed_matmul import (
            fuse_transposed_matmul,
        )
        from portrt.compiler.backends.onnxruntime.rewrites.group_norm import (
            group_norm_by_instance_norm,
        )
        from portrt.compiler.backends.onnxruntime.rewrites.integer_sums import exact_integer_sums
        from portrt.compiler.backends.onnxruntime.rewrites.missing_kernels import (
            widen_missing_kernels,
        )

        data = exact_integer_sums(group_norm_by_instance_norm(fuse_transposed_matmul(data)))
        data = widen_missing_kernels(data)
        # Opening it checks that every operator has a kernel here; the session is discarded.
        try:
            open_session(data, model.weights, WeightsImage(build_input.image), low_memory=True)
        except Exception as err:
            from portrt.compiler.backends.onnxruntime.refusals import nodes_at_fault

            nodes = nodes_at_fault(str(err), data)
            within = f", in {', '.join(nodes)}" if nodes else ""
            raise BuildError(
                f"onnxruntime refuses {build_input.block.name}: {first_line(err)}{within}",
                "operators and dtypes for which ONNX Runtime has a CPU kernel",
                "name the operator in torch_executed_ops, or leave onnxruntime out of engines",
            ) from err
        return Engine(
            backend=self.name,
            data=data,
            build={
                "library": "onnxruntime",
                "version": library_version(),
                "opset": model.opset,
                "onnx_nodes": model.nodes,
                "flags": flags,
                "weights_in_place": left_alone(data, model.weights),
                "os": platform.system().lower(),
                "arch": platform.machine(),
                "seconds": round(time.perf_counter() - started, 3),
            },
            requires={"device": ["cpu"], self.name: _oldest(build_input)},
            weights=model.weights,
        )


def _oldest(build_input: BuildInput) -> str:
    """Return the oldest release that may run the block."""
    nodes = nested.all_nodes(build_input.block.program.graph_module)
    return SAFE_DIVISION if any(map(divides_integers, nodes)) else _OLDEST


def _has_bfloat16(build_input: BuildInput) -> bool:
    nodes = nested.all_nodes(build_input.block.program.graph_module)
    values = [node.meta.get("val") for node in nodes]
    return any(isinstance(v, torch.Tensor) and v.dtype == torch.bfloat16 for v in values)
