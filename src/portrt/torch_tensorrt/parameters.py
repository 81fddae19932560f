"""The parameters of Torch-TensorRT's `dynamo.compile`: which have a meaning here, and which not.

docs/torch_tensorrt.md shows them as a table, and a test calls `compile` with each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portrt.compiler.options.torch_tensorrt import WITHOUT_MEANING

WORKS = "works"
NO_EFFECT = "no effect"
REFUSED = "refused"

_CACHE = Path(tempfile.gettempdir()) / "torch_tensorrt_engine_cache"


@dataclass(frozen=True)
class Parameter:
    """A parameter.

    Attributes:
        name: Its name in Torch-TensorRT.
        default: Its default there.
        state: `WORKS`; `NO_EFFECT`: a value that is not the default gives a warning; `REFUSED`: it
            is an error.
        here: What it does here, or what happens instead.
        also: Further values that request what happens here.
    """

    name: str
    default: Any
    state: str
    here: str
    also: tuple[Any, ...] = ()

    def is_default(self, value: Any) -> bool:
        """Return whether a value requests nothing but what happens here."""
        if value is None:
            return True
        if isinstance(self.default, Collection) and not isinstance(self.default, str):
            return isinstance(value, Collection) and not isinstance(value, str) and not len(value)
        if isinstance(self.default, Path):
            return isinstance(value, (str, Path)) and Path(value) == self.default
        plain = (bool, int, float, str)
        known = (self.default, *self.also)
        return any(value is item for item in known) or (isinstance(value, plain) and value in known)


def _same(name: str) -> str:
    """Return why an option that `portrt.compile` accepts as well has no effect."""
    return WITHOUT_MEANING[name]


_DLA = "engines are built for GPUs, not for DLA cores"
_MEMORY = "engines are built in another process, one after the other, with the memory that it has"

_PARAMETERS = (
    Parameter("exported_program", ..., WORKS, "the model: an ExportedProgram or an nn.Module"),
    Parameter("inputs", None, WORKS, "tensors or `Input`s, in a list or one alone"),
    Parameter("arg_inputs", None, WORKS, "the same as `inputs`"),
    Parameter("kwarg_inputs", None, WORKS, "tensors or `Input`s by name"),
    Parameter(
        *("device", None, WORKS),
        "the device of examples that `Input`s make, where the model has no tensors; the program "
        "runs on the device of its inputs",
    ),
    Parameter("disable_tf32", False, WORKS, "`disable_tf32`"),
    Parameter(
        *("assume_dynamic_shape_support", False, WORKS),
        "either value: dynamic shapes are always supported",
        (True,),
    ),
    Parameter("sparse_weights", False, WORKS, "`sparse_weights`"),
    Parameter(
        *("engine_capability", "standard", REFUSED),
        "only STANDARD: no builder makes safety or DLA engines here",
    ),
    Parameter("num_avg_timing_iters", 1, WORKS, "`num_avg_timing_iters`"),
    Parameter("workspace_size", 0, WORKS, "`workspace_size`"),
    Parameter("dla_sram_size", 1048576, NO_EFFECT, _DLA),
    Parameter("dla_local_dram_size", 1073741824, NO_EFFECT, _DLA),
    Parameter("dla_global_dram_size", 536870912, NO_EFFECT, _DLA),
    Parameter("truncate_double", False, NO_EFFECT, _same("truncate_double")),
    Parameter(
        *("use_complex_decomposition", True, NO_EFFECT),
        "complex numbers are always pairs of real tensors in engines",
    ),
    Parameter("require_full_compilation", False, WORKS, "`require_full_compilation`"),
    Parameter(
        *("min_block_size", 5, WORKS),
        "`min_block_size`; 0 is 1, and infinity keeps the whole model in PyTorch",
    ),
    Parameter("torch_executed_ops", frozenset(), WORKS, "`torch_executed_ops`"),
    Parameter(
        *("torch_executed_modules", frozenset(), WORKS),
        "`torch_executed_modules`; classes may be given, too",
    ),
    Parameter(
        *("pass_through_build_failures", False, WORKS),
        "True is `require_engines=True`: an engine that cannot be built is an error",
    ),
    Parameter("max_aux_streams", None, WORKS, "`max_aux_streams`"),
    Parameter("version_compatible", False, WORKS, "`version_compatible`"),
    Parameter("optimization_level", None, WORKS, "`optimization_level`"),
    Parameter(
        *("use_python_runtime", False, WORKS),
        "`use_python_runtime`: False has the C++ runtime call the engines, and where it is not "
        "given, Python does",
    ),
    Parameter("use_fast_partitioner", True, NO_EFFECT, _same("use_fast_partitioner")),
    Parameter(
        *("enable_experimental_decompositions", False, NO_EFFECT),
        _same("enable_experimental_decompositions"),
    ),
    Parameter(
        *("dryrun", False, WORKS),
        "True prints what would be compiled, and a path gets the report as JSON, too",
    ),
    Parameter("hardware_compatible", False, WORKS, "`hardware_compatible`"),
    Parameter(
        *("timing_cache_path", _CACHE / "timing_cache.bin", NO_EFFECT),
        "timing caches are in the folder of `cache_dir`, one for each builder and GPU",
    ),
    Parameter(
        *("lazy_engine_init", False, WORKS), f"either value: {_same('lazy_engine_init')}", (True,)
    ),
    Parameter(
        *("cache_built_engines", False, WORKS), "`cache_built_engines`, True where it is not given"
    ),
    Parameter(
        "reuse_cached_engines", False, WORKS, "`reuse_cached_engines`, True where it is not given"
    ),
    Parameter("engine_cache_dir", _CACHE, WORKS, "`cache_dir`"),
    Parameter(
        *("engine_cache_size", 5368709120, NO_EFFECT),
        "the variable PORTRT_CACHE_BYTES limits the cache, to 10 GB by default",
    ),
    Parameter(
        *("custom_engine_cache", None, NO_EFFECT),
        "engines are cached in the folder of `cache_dir`, and the object is not called",
    ),
    Parameter(
        *("use_fp32_acc", False, NO_EFFECT),
        "the builder chooses how products in half precision are summed; "
        "`autocast_excluded_ops` keeps operators in float32",
    ),
    Parameter(
        *("refit_identical_engine_weights", False, NO_EFFECT),
        "equal engines come from the cache, whose keys contain the weights",
    ),
    Parameter("strip_engine_weights", False, WORKS, "`strip_engine_weights`"),
    Parameter("immutable_weights", True, WORKS, "`immutable_weights`"),
    Parameter(
        *("enable_weight_streaming", False, NO_EFFECT),
        "an engine has all its weights in GPU memory",
    ),
    Parameter("tiling_optimization_level", "none", WORKS, "`tiling_optimization_level`"),
    Parameter("l2_limit_for_tiling", -1, WORKS, "`l2_limit_for_tiling`"),
    Parameter("offload_module_to_cpu", False, NO_EFFECT, _same("offload_module_to_cpu")),
    Parameter(
        *("use_distributed_mode_trace", False, NO_EFFECT),
        "the model is captured by torch.export, and collectives stay in PyTorch",
    ),
    Parameter("enable_autocast", False, WORKS, "`precision`, that of the next row or fp16"),
    Parameter("autocast_low_precision_type", None, WORKS, "`precision`, with `enable_autocast`"),
    Parameter(
        *("autocast_excluded_nodes", frozenset(), NO_EFFECT), _same("autocast_excluded_nodes")
    ),
    Parameter("autocast_excluded_ops", frozenset(), WORKS, "`autocast_excluded_ops`"),
    Parameter(
        *("autocast_max_output_threshold", 512, WORKS),
        "`autocast_max_output_threshold`, 16384 where it is not given",
    ),
    Parameter(
        *("autocast_max_depth_of_reduction", None, NO_EFFECT),
        _same("autocast_max_depth_of_reduction"),
    ),
    Parameter(
        *("autocast_calibration_dataloader", None, NO_EFFECT),
        "the sample inputs are what `autocast_max_output_threshold` is compared with",
    ),
    Parameter("cpu_memory_budget", None, NO_EFFECT, _MEMORY),
    Parameter("enable_resource_partitioning", False, NO_EFFECT, _MEMORY),
    Parameter(
        *("dynamically_allocate_resources", False, NO_EFFECT),
        "scratch memory is always allocated from torch for the duration of a call",
    ),
    Parameter(
        *("decompose_attention", False, NO_EFFECT),
        "attention is one operator where the builder takes it, else products and a softmax",
    ),
    Parameter(
        *("disabled_constant_fold_exclusions", frozenset(), NO_EFFECT),
        "constants are folded by the builder, by its own rules",
    ),
    Parameter(
        *("attn_bias_is_causal", True, WORKS),
        "either value: the bias of attention is added as it is",
        (False,),
    ),
    Parameter(
        *("fallback_data_dependent_ops", False, NO_EFFECT),
        "TensorRT engines always leave such operators to PyTorch, onnxruntime engines take some; "
        "`torch_executed_ops` keeps chosen ones in PyTorch",
    ),
)

PARAMETERS = {parameter.name: parameter for parameter in _PARAMETERS}

# Older names, and those of `torch_tensorrt.compile`: name -> the parameter or what it does here.
OLDER = {
    "enabled_precisions": "`precision`, the lowest of them",
    "use_explicit_typing": f"either value: {_same('use_explicit_typing')}",
    "truncate_long_and_double": "as `truncate_double`",
    "make_refittable": "`immutable_weights`, negated",
    "make_refitable": "`immutable_weights`, negated",
    "refit": "`immutable_weights`, negated",
    "debug": "no effect: `torch_tensorrt.logging.debug()`, or the logger 'portrt'",
    "calibrator": "no effect: int8 comes from a quantized model",
    "enable_cross_compile_for_windows": "no effect: `cross_compile_for_windows` does it",
    "prefer_deferred_runtime_asserts_over_guards": "no effect: torch.export is called without it",
    "strict": "`strict`",
}
