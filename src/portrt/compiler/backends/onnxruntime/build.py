"""Builder of ONNX Runtime engines: an engine is a small ONNX graph over the shared weights."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import torch

from portrt.compiler.backends.base import BuilderInput, BuildInput
from portrt.compiler.backends.onnxruntime.limits import (
    SAFE_DIVISION,
    divides_integers,
    matches_pytorch,
    refuses_negative_indices,
)
from portrt.compiler.backends.onnxruntime.no_elements import sizes_that_matter
from portrt.compiler.backends.support import supports_dtypes
from portrt.compiler.convert import NEWEST_OPSET
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.compiler.sizes.nonzero_sizes import nonzero_sizes
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
        data = _rewritten(data, build_input)
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
            requires={
                "device": ["cpu"],
                self.name: _oldest(build_input),
                "nonzero_sizes": nonzero_sizes(build_input.block, sizes_that_matter),
            },
            weights=model.weights,
        )


def _rewritten(data: bytes, build_input: BuildInput) -> bytes:
    """Apply the rewrites for ONNX Runtime: for numbers, then for speed."""
    from portrt.compiler.backends.onnxruntime.rewrites import (
        attention_masks,
        fuse_transposed_matmul,
        group_norm,
        integer_sums,
        missing_kernels,
        nan_extremes,
        negative_indices,
    )

    data = attention_masks.finite_attention_masks(data)
    data = negative_indices.refuse_negative_indices(
        data, _takes_no_negative_indices(build_input), _smallest(build_input)
    )
    data = nan_extremes.nan_in_extremes(data)
    data = fuse_transposed_matmul.fuse_transposed_matmul(data)
    data = group_norm.group_norm_by_instance_norm(data)
    data = integer_sums.exact_integer_sums(data)
    return missing_kernels.widen_missing_kernels(data)


def _takes_no_negative_indices(build_input: BuildInput) -> set[str]:
    """Return the names of the nodes with an index that PyTorch refuses if it is negative."""
    nodes = nested.all_nodes(build_input.block.program.graph_module)
    return {node.name for node in nodes if refuses_negative_indices(node)}


def _smallest(build_input: BuildInput) -> Callable[[str], float]:
    image = WeightsImage(build_input.image)

    def smallest(name: str) -> float:
        weight = image.tensor(name)
        return float(weight.min()) if weight.numel() else 0.0

    return smallest


def _oldest(build_input: BuildInput) -> str:
    """Return the oldest release that may run the block."""
    nodes = nested.all_nodes(build_input.block.program.graph_module)
    return SAFE_DIVISION if any(map(divides_integers, nodes)) else _OLDEST


def _has_bfloat16(build_input: BuildInput) -> bool:
    nodes = nested.all_nodes(build_input.block.program.graph_module)
    values = [node.meta.get("val") for node in nodes]
    return any(isinstance(v, torch.Tensor) and v.dtype == torch.bfloat16 for v in values)
