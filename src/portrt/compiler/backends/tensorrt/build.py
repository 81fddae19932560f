"""Builds with TensorRT or TensorRT-RTX, from ONNX at an opset that the parser accepts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from portrt.compiler.backends.base import BuildInput
from portrt.compiler.backends.quantized import is_quantized_dataflow
from portrt.compiler.backends.support import supports_dtypes, tensors_of
from portrt.compiler.backends.tensorrt.explicit_quantization import explicit_quantization
from portrt.compiler.backends.tensorrt.options import TensorRTOptions
from portrt.compiler.backends.tensorrt.process import Built, ParserRefusal, build_in_process
from portrt.compiler.backends.tensorrt.rewrites import rewritten
from portrt.compiler.convert import OnnxModel
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Block
from portrt.compiler.sizes import data_sizes
from portrt.errors import BuildError, ConvertError
from portrt.format import size_expr
from portrt.format.dimensions import Dimension
from portrt.graphs import nested, spectral
from portrt.verdict import YES, Verdict

DTYPES = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
    }
)
# The first opset with an attention operator; at lower ones attention is matrix products and a
# softmax.
_ATTENTION_OPSET = 23


def supports(node: torch.fx.Node, name: str) -> Verdict:
    """Return whether an engine of TensorRT or TensorRT-RTX, called `name`, can contain a node."""
    if is_quantized_dataflow(node):  # int8 and float8 between quantizers
        return YES
    if data_sizes.any_data_dependent(tensors_of(node)):
        return data_sizes.REFUSED
    verdict = supports_dtypes(node, DTYPES, name)
    if verdict and node.target in spectral.TRANSFORMS and not spectral.is_matrix_product(node):
        length = spectral.length_of(node)
        what = "of dynamic length" if length is None else f"of length {length}"
        return Verdict.no(
            "unsupported_operator",
            f"{name} has no Fourier transform: a short one of a fixed length is a matrix product, "
            f"and this is one {what}",
            f"transform frames of a fixed length, or leave {name} out of engines",
        )
    return verdict


@dataclasses.dataclass(frozen=True)
class BuiltEngine:
    """Result of a build.

    Attributes:
        data: The serialized engine.
        result: Result of the worker process.
        build: Entry `build` of the manifest, with the fields that both libraries share.
        weights: Names of the weights that were stripped from the engine.
    """

    data: bytes
    result: Mapping[str, Any]
    build: Mapping[str, Any]
    weights: tuple[str, ...]


def build_engine(
    build_input: BuildInput,
    settings: Settings,
    *,
    library: str,
    install: str,
    opsets: Sequence[int],
    options: Mapping[str, Any],
) -> BuiltEngine:
    """Build in the worker process, at the newest opset that converter and parser accept.

    Args:
        build_input: The block and its conversions.
        settings: Settings of this engine.
        library: Name of the builder's Python module.
        install: Command that installs it, for messages.
        opsets: Opsets to try, newest first. The next one is tried if the parser rejects the model,
            or if the builder rejects attention as one operator.
        options: Further fields of the worker's job.

    Raises:
        BuildError: The builder rejects the model at the lowest opset as well.
        ConvertError: The block cannot be translated at the lowest opset.
    """
    started = time.perf_counter()
    profiles = profiles_of(build_input.block)
    own = settings.of(TensorRTOptions)
    job = {
        "module": library,
        "install": install,
        "profiles": profiles,
        "optimization_level": own.optimization_level,
        "workspace_size": own.workspace_size,
        "disable_tf32": own.disable_tf32,
        "sparse_weights": own.sparse_weights,
        "config": _config(own),
        "version_compatible": own.version_compatible,
        "hardware_compatible": own.hardware_compatible,
        "compute_capabilities": list(own.target_compute_capabilities),
        "plugins": list(own.plugins),
        "strip_weights": own.strip_engine_weights,  # replaced by their names in `_build`
        **options,
    }
    model, built = _at_first_opset(build_input, job, settings, opsets)
    result = built.result
    build = {
        "library": library,
        "version": result["version"],
        "opset": model.opset,
        "onnx_nodes": model.nodes,
        "layers": result["layers"],
        "flags": result["flags"],
        "profiles": profiles,
        "os": result["os"],
        "arch": result["arch"],
        "seconds": round(time.perf_counter() - started, 3),
    }
    # Properties of the build machine; a builder that needs no GPU may report none.
    build |= {key: result[key] for key in ("driver", "driver_cuda") if key in result}
    if result.get("warnings"):
        build["warnings"] = result["warnings"]
    stripped = tuple(name for name in model.weights if name in result.get("stripped", ()))
    return BuiltEngine(built.data, result, build, stripped)


def _config(options: TensorRTOptions) -> dict[str, Any]:
    """Return attribute of the builder's configuration -> value, of what differs from its default.

    A text is the name of a member of an enumeration.
    """
    found: dict[str, Any] = {}
    if options.max_aux_streams is not None:
        found["max_aux_streams"] = options.max_aux_streams
    if options.num_avg_timing_iters != 1:
        found["avg_timing_iterations"] = options.num_avg_timing_iters
    if options.tiling_optimization_level != "none":
        found["tiling_optimization_level"] = options.tiling_optimization_level.upper()
    if options.l2_limit_for_tiling >= 0:
        found["l2_limit_for_tiling"] = options.l2_limit_for_tiling
    return found


def _at_first_opset(
    build_input: BuildInput, job: Mapping[str, Any], settings: Settings, opsets: Sequence[int]
) -> tuple[OnnxModel, Built]:
    *attempts, last = opsets
    for opset in attempts:
        try:
            return _build(build_input, job, settings, opset)
        except (ParserRefusal, ConvertError):
            continue
        except BuildError:
            if not _has_attention(build_input.block) or opset < _ATTENTION_OPSET:
                raise
    return _build(build_input, job, settings, last)


def _build(
    build_input: BuildInput, job: Mapping[str, Any], settings: Settings, opset: int
) -> tuple[OnnxModel, Built]:
    library = str(job["module"])
    model = explicit_quantization(build_input.convert(opset))
    model = rewritten(model, library, largest_shapes(job["profiles"]))
    if job["strip_weights"]:
        job = {**job, "strip_weights": list(model.weights)}
    built = build_in_process(
        job,
        model.data,
        build_input.image if model.weights else None,
        what=f"{build_input.block.name} for {library}",
        python=settings.of(TensorRTOptions).builder_python,
        timeout_s=settings.build_timeout_s,
    )
    return model, built


def largest_shapes(profiles: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return input -> its largest shape in any of the profiles."""
    return {
        name: list(map(max, *(sizes[name][2] for sizes in (*profiles, profiles[0]))))
        for name in profiles[0]
    }


def _has_attention(block: Block) -> bool:
    targets = {node.target for node in nested.all_nodes(block.program.graph_module)}
    return torch.ops.aten.scaled_dot_product_attention.default in targets


def profiles_of(block: Block) -> list[dict[str, list[list[int]]]]:
    """Return input -> min, opt and max shape, for each optimization profile.

    Raises:
        BuildError: A dimension has no upper bound.
    """
    sizes = [size for spec in block.inputs for size in spec.shape if isinstance(size, Dimension)]
    count = max((len(size.profiles) for size in sizes), default=0)
    return [
        {
            spec.name: [
                [_size(block, (index, axis), bound, profile) for axis in range(len(spec.shape))]
                for bound in range(3)
            ]
            for index, spec in enumerate(block.inputs)
        }
        for profile in range(max(count, 1))
    ]


def _size(block: Block, dim: tuple[int, int], bound: int, profile: int) -> int:
    """Return a size in a profile: min (bound 0), opt (1) or max (2)."""
    index, axis = dim
    name, size = block.inputs[index].name, block.inputs[index].shape[axis]
    if not isinstance(size, Dimension):
        return int(size_expr.evaluate(size, lambda *other: _size(block, other, bound, profile)))
    if size.profiles:
        return size.profiles[profile][bound]
    found = (size.min, size.opt, size.max)[bound]
    if found is None:
        raise BuildError(
            f"dimension {size.symbol} of input {name!r} has no upper bound",
            "a largest size for each dynamic dimension, which TensorRT needs",
            "give torch.export.Dim(..., max=...), portrt.Input(max_shape=...), or "
            f"profiles=[{{'{name}[{axis}]': (min, opt, max)}}]",
        )
    return found
