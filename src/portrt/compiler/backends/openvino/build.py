"""Builder of OpenVINO engines: an engine is an ONNX model whose weights are inputs."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from portrt.compiler.backends.base import BuilderInput, BuildInput
from portrt.compiler.backends.onnxruntime.limits import refuses_negative_indices
from portrt.compiler.backends.openvino.limits import DTYPES, matches_pytorch
from portrt.compiler.backends.support import supports_dtypes
from portrt.compiler.convert import NEWEST_OPSET
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.compiler.sizes.nonzero_sizes import nonzero_sizes, sizes_of_tensors
from portrt.engines.base import Session
from portrt.engines.openvino.native import library_version
from portrt.engines.openvino.runtime import OpenVINORuntime, installed
from portrt.engines.openvino.session import MAX_INTEGER, first_line
from portrt.errors import BuildError
from portrt.format.manifest import Blob, EngineSpec
from portrt.graphs import nested
from portrt.verdict import Verdict
from portrt.weights import WeightsImage

# The release whose numbers were compared with PyTorch's.
_OLDEST = "2026.4"


class OpenVINOBuilder:
    """Builds on any machine that has OpenVINO."""

    name = "openvino"
    input: BuilderInput = "onnx"

    def can_build(self, settings: Settings | None = None) -> Verdict:  # noqa: ARG002
        """Return whether OpenVINO is installed."""
        return installed()

    def supports(self, node: torch.fx.Node) -> Verdict:
        """Return whether OpenVINO computes a node as PyTorch does."""
        return supports_dtypes(node, DTYPES, self.name) and matches_pytorch(node)

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        """Build the engine of one block; see `Builder`."""
        started = time.perf_counter()
        model = build_input.convert(NEWEST_OPSET, True)  # so that it can get new weights
        _check_weights(build_input)
        fast = settings.numerics == "fast"
        data = _rewritten(model.data, build_input, fast=fast)
        engine = Engine(
            backend=self.name,
            data=_with_weights_as_inputs(data, model.weights),
            build={
                "library": "openvino",
                "version": library_version(),
                "opset": model.opset,
                "onnx_nodes": model.nodes,
                **({"numerics": settings.numerics} if fast else {}),
                **({"inference_precision": "bf16"} if settings.precision == "bf16" else {}),
                "os": platform.system().lower(),
                "arch": platform.machine(),
            },
            requires={
                "device": ["cpu"],
                self.name: _OLDEST,
                "nonzero_sizes": nonzero_sizes(build_input.block, _sizes_of_node),
            },
            weights=model.weights,
        )
        session = _opened(engine, build_input)
        seconds = round(time.perf_counter() - started, 3)
        build = {**engine.build, "seconds": seconds}
        return dataclasses.replace(engine, build=build, opened=(engine.data, session))


def _sizes_of_node(node: torch.fx.Node) -> list[Any]:
    return sizes_of_tensors([node])


def _check_weights(build_input: BuildInput) -> None:
    """Raise BuildError for integer weights that OpenVINO does not compute exactly."""
    for name in build_input.block.weights:
        tensor = build_input.tensors[name]
        if tensor.dtype not in (torch.int32, torch.int64) or not tensor.numel():
            continue
        low, high = (int(end) for end in torch.aminmax(tensor))
        if low < -MAX_INTEGER or high > MAX_INTEGER:
            raise BuildError(
                f"openvino refuses {build_input.block.name}: {name} has integers from {low} to "
                f"{high}",
                f"integers up to {MAX_INTEGER}, which OpenVINO computes exactly",
                "leave openvino out of engines",
            )


def _rewritten(data: bytes, build_input: BuildInput, *, fast: bool) -> bytes:
    """Apply the rewrites for OpenVINO.

    Args:
        data: ModelProto bytes.
        build_input: What the model is of.
        fast: Whether to leave out those for NaN that cost time.
    """
    from portrt.compiler.backends.onnxruntime.rewrites import nan_extremes
    from portrt.compiler.backends.openvino import rewrites
    from portrt.compiler.convert.onnx_nodes import Rewrite, rewritten

    nodes = nested.all_nodes(build_input.block.program.graph_module)
    refusing = {node.name for node in nodes if refuses_negative_indices(node)}
    pools = () if fast else ("MaxPool",)
    found: list[tuple[Iterable[str], Rewrite]] = [
        (pools, nan_extremes.nan_in_extremes),
        (rewrites.KINDS, partial(rewrites.nan_as_in_pytorch, fast=fast)),
        (("Gather",), partial(rewrites.with_fault_of_indices, refusing=refusing)),
    ]
    return rewritten(data, found)


def _with_weights_as_inputs(data: bytes, weights: tuple[str, ...]) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    graph, wanted = model.graph, set(weights)
    kept = [tensor for tensor in graph.initializer if tensor.name not in wanted]
    for tensor in graph.initializer:
        if tensor.name in wanted:
            made = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(made)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    made_bytes: bytes = model.SerializeToString()
    return made_bytes


def _opened(engine: Engine, build_input: BuildInput) -> Session:
    """Open an engine, which checks that OpenVINO reads every operator."""
    block = build_input.block
    try:
        return OpenVINORuntime().open(
            EngineSpec.of(engine, Blob.of(0, engine.data)),
            block.signature,
            torch.frombuffer(bytearray(engine.data), dtype=torch.uint8),
            WeightsImage(build_input.image) if engine.weights else None,
            device=torch.device("cpu"),
        )
    except Exception as err:
        cause = err.__cause__ or err
        raise BuildError(
            f"openvino refuses {block.name}: {first_line(cause)}",
            "operators that OpenVINO reads from ONNX",
            "name the operator in torch_executed_ops, or leave openvino out of engines",
        ) from cause
