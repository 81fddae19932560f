"""Builder of ONNX Runtime engines: an engine is a small ONNX graph over the shared weights."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch

from portrt.compiler.backends.base import BuilderInput, BuildInput, RefusedNodesError
from portrt.compiler.backends.onnxruntime.limits import (
    SAFE_DIVISION,
    divides_integers,
    matches_pytorch,
    refuses_negative_indices,
)
from portrt.compiler.backends.onnxruntime.no_elements import sizes_that_matter
from portrt.compiler.backends.onnxruntime.updates import updates_in_place
from portrt.compiler.backends.support import supports_dtypes
from portrt.compiler.convert import NEWEST_OPSET
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.compiler.sizes.nonzero_sizes import nonzero_sizes
from portrt.engines.base import OpenOptions, Session
from portrt.engines.onnxruntime.runtime import OnnxRuntimeRuntime, installed
from portrt.engines.onnxruntime.session import library_version
from portrt.errors import first_line
from portrt.format.manifest import Blob, EngineSpec
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
# Operators whose weights the optimizer does not change, tried with 1.23 and 1.32. Those of others,
# such as Add and DequantizeLinear, it transposes in place, to remove Transpose nodes.
_LEAVE_ALONE = {"Conv", "Gather", "Gemm", "MatMul"}


class OnnxRuntimeBuilder:
    """Builds on any machine that has ONNX Runtime."""

    name = "onnxruntime"
    input: BuilderInput = "onnx"

    def can_build(self, settings: Settings | None = None) -> Verdict:  # noqa: ARG002
        return installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        verdict = supports_dtypes(node, _DTYPES, self.name)
        return verdict and matches_pytorch(node, library_version())

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        started = time.perf_counter()
        model = build_input.convert(NEWEST_OPSET, True)  # so that it can get new weights
        in_float32 = _has_bfloat16(build_input)
        fast = settings.numerics == "fast"
        data = _rewritten(model.data, build_input, in_float32=in_float32, fast=fast)
        inputs = [spec.name for spec in build_input.block.inputs]
        updates = updates_in_place(data, inputs)
        engine = Engine(
            backend=self.name,
            data=data,
            build={
                "library": "onnxruntime",
                "version": library_version(),
                "opset": model.opset,
                "onnx_nodes": model.nodes,
                "flags": ["bfloat16 computed in float32"] if in_float32 else [],
                **({"numerics": settings.numerics} if fast else {}),
                "weights_in_place": _left_alone(data, model.weights),
                **({"updates_in_place": updates} if updates else {}),
                "os": platform.system().lower(),
                "arch": platform.machine(),
            },
            requires={
                "device": ["cpu"],
                self.name: _oldest(build_input),
                "nonzero_sizes": nonzero_sizes(build_input.block, sizes_that_matter),
            },
            weights=model.weights,
        )
        session = _opened(engine, build_input)
        seconds = round(time.perf_counter() - started, 3)
        build = {**engine.build, "seconds": seconds}
        return dataclasses.replace(engine, build=build, opened=(data, session))


def _opened(engine: Engine, build_input: BuildInput) -> Session:
    """Open an engine, which checks that every operator has a kernel here."""
    block = build_input.block
    try:
        return OnnxRuntimeRuntime().open(
            EngineSpec.of(engine, Blob.of(0, engine.data)),
            block.signature,
            torch.frombuffer(bytearray(engine.data), dtype=torch.uint8),
            WeightsImage(build_input.image) if engine.weights else None,
            device=torch.device("cpu"),
            options=OpenOptions(low_memory=True),
        )
    except Exception as err:
        from portrt.compiler.backends.onnxruntime.refusals import nodes_at_fault, refused_by_dtypes

        cause = err.__cause__ or err
        nodes = nodes_at_fault(str(cause), engine.data)
        within = f", in {', '.join(nodes)}" if nodes else ""
        refused = refused_by_dtypes(str(cause), engine.data)
        kinds = ", ".join(sorted({node.op_type for node in refused}))
        all_of = f"; of {block.name} it has no kernels for {kinds}" if len(refused) > 1 else ""
        raise RefusedNodesError(
            f"onnxruntime refuses {block.name}: {first_line(cause)}{within}{all_of}",
            "operators and dtypes for which ONNX Runtime has a CPU kernel",
            "name the operator in torch_executed_ops, or leave onnxruntime out of engines",
            tuple(str(node.name) for node in refused),
        ) from cause


def _rewritten(data: bytes, build_input: BuildInput, *, in_float32: bool, fast: bool) -> bytes:
    """Apply the rewrites for ONNX Runtime: for numbers, then for speed.

    Args:
        data: ModelProto bytes.
        build_input: What the model is of.
        in_float32: Whether to compute bfloat16 in float32.
        fast: Whether to leave out those for numbers that cost more than 3 %.
    """
    import onnx_ir as ir

    from portrt.compiler.backends.onnxruntime.rewrites import (
        attention_masks,
        clip_bounds,
        fuse_transposed_matmul,
        group_norm,
        integer_sums,
        missing_kernels,
        nan_extremes,
        negative_indices,
        prelu,
        scatter_rows,
        wide_prefixes,
        widen_bfloat16,
    )
    from portrt.compiler.convert.onnx_nodes import ANY, Rewrite, rewritten

    refusing = _takes_no_negative_indices(build_input, fast=fast)
    refuse = partial(
        negative_indices.refuse_negative_indices,
        refusing=refusing,
        smallest=_smallest(build_input),
    )
    widen = partial(widen_bfloat16.widen, dtype=ir.DataType.BFLOAT16)
    rewrites: list[tuple[Iterable[str], Rewrite]] = [
        (ANY if in_float32 else (), widen),
        (("Attention",), attention_masks.finite_attention_masks),
        (("Clip",), clip_bounds.infinite_bounds),
        (("PRelu",), partial(prelu.multiply_zeros_by_slopes, is_finite=_is_finite(build_input))),
        (negative_indices.INDICES if refusing else (), refuse),
        (nan_extremes.KINDS, partial(nan_extremes.nan_in_extremes, fast=fast)),
        (("CumSum", "Scan"), wide_prefixes.accumulate_in_float64),
        (("MatMul",), fuse_transposed_matmul.fuse_transposed_matmul),
        (("GroupNormalization",), group_norm.group_norm_by_instance_norm),
        (("ReduceSum",), integer_sums.exact_integer_sums),
        (("ScatterND",), scatter_rows.scatter_rows),
        (missing_kernels.WIDER, missing_kernels.widen_missing_kernels),
    ]
    return rewritten(data, rewrites)


def _left_alone(data: bytes, names: Sequence[str]) -> list[int]:
    """Find the weights that ONNX Runtime's optimizer does not change, by the nodes that use them.

    Args:
        data: The ONNX model.
        names: Names of its external weights.

    Returns:
        Their indices in `names`.
    """
    if not names:
        return []
    import onnx

    takers: dict[str, set[str]] = {}
    graphs = [onnx.load_model_from_string(data).graph]
    while graphs:
        for node in graphs.pop().node:
            for name in node.input:
                takers.setdefault(name, set()).add(node.op_type)
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [place for place, name in enumerate(names) if takers.get(name, {"none"}) <= _LEAVE_ALONE]


def _takes_no_negative_indices(build_input: BuildInput, *, fast: bool) -> set[str]:
    """Return the names of the nodes with an index that PyTorch refuses if it is negative.

    Args:
        build_input: What the model is of.
        fast: Whether to leave out those with an index for each element.
    """
    nodes = nested.all_nodes(build_input.block.program.graph_module)
    return {node.name for node in nodes if refuses_negative_indices(node, whole_rows=fast)}


def _smallest(build_input: BuildInput) -> Callable[[str], float]:
    image = WeightsImage(build_input.image)

    def smallest(name: str) -> float:
        weight = image.tensor(name)
        return float(weight.min()) if weight.numel() else 0.0

    return smallest


def _is_finite(build_input: BuildInput) -> Callable[[str], bool]:
    image = WeightsImage(build_input.image)

    def is_finite(name: str) -> bool:
        return bool(image.tensor(name).isfinite().all())

    return is_finite


def _oldest(build_input: BuildInput) -> str:
    """Return the oldest release that may run the block."""
    nodes = nested.all_nodes(build_input.block.program.graph_module)
    return SAFE_DIVISION if any(map(divides_integers, nodes)) else _OLDEST


def _has_bfloat16(build_input: BuildInput) -> bool:
    nodes = nested.all_nodes(build_input.block.program.graph_module)
    values = [node.meta.get("val") for node in nodes]
    return any(isinstance(v, torch.Tensor) and v.dtype == torch.bfloat16 for v in values)
