"""Types of the options of `compile` and `files.add_engine`, for editors and type checkers.

A test checks that the names equal the fields that declare the options. Options of other packages'
backends are not included; they are given in the mappings of `engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import os

    import torch

    from portrt.format.compile_report import CompileReport

    Overload: TypeAlias = torch._ops.OpOverload[..., Any]
    Operator: TypeAlias = str | Overload | torch._ops.OpOverloadPacket[..., Any]
    Operators: TypeAlias = Operator | Collection[Operator]
    ComputeCapability: TypeAlias = str | int | float | tuple[int, int]
    File: TypeAlias = str | os.PathLike[str]


class TensorRTKeywords(TypedDict, total=False):
    """The fields of `TensorRTOptions`."""

    optimization_level: int | None
    workspace_size: int
    disable_tf32: bool
    sparse_weights: bool
    max_aux_streams: int | None
    num_avg_timing_iters: int
    tiling_optimization_level: Literal["none", "fast", "moderate", "full"]
    l2_limit_for_tiling: int
    version_compatible: bool
    exclude_lean_runtime: bool
    strip_engine_weights: bool
    hardware_compatible: bool
    target_compute_capabilities: str | Collection[ComputeCapability]
    builder_python: str | None
    plugins: File | Sequence[File]


class InductorKeywords(TypedDict, total=False):
    """The fields of `InductorOptions`."""

    max_autotune: bool
    freezing: bool


class EngineKeywords(TensorRTKeywords, InductorKeywords, total=False):
    """Options that can be set for a single engine."""

    precision: Literal["fp16", "bf16", "fp32"] | torch.dtype | None
    autocast_excluded_modules: str | Collection[str]
    autocast_excluded_ops: Operators
    autocast_max_output_threshold: float
    numerics: Literal["exact", "fast"]
    build_timeout_s: float


class EngineEntry(EngineKeywords, total=False):
    """An entry of `engines` with its own options."""

    backend: str


class OneEngineKeywords(EngineKeywords, total=False):
    """The fields that also apply when a single engine is built."""

    min_block_size: int
    torch_executed_ops: Operators
    torch_executed_modules: str | Collection[str]
    translations: Mapping[Operator, Callable[..., Any]]
    immutable_weights: bool
    passes: Callable[..., Any] | Sequence[Callable[..., Any]]
    require_full_compilation: bool
    report: bool | File | Callable[[CompileReport], object] | None
    fallback: Literal["eager", "error", "inductor"] | None
    check: Literal["fallback", "error", "accept", "off", "first-open"]
    check_budget: float
    strict: bool
    cache_dir: File | None
    cache_built_engines: bool
    reuse_cached_engines: bool


class SettingsKeywords(OneEngineKeywords, total=False):
    """The fields of `Settings` and of all backends' options, without `output_format`."""

    engines: str | EngineEntry | Sequence[str | EngineEntry | Mapping[str, Any]] | None
    require_engines: bool
    optimize_for: Literal["latency", "throughput", "size"] | None
    optimize_budget: float
    dryrun: bool


class TorchTensorRTKeywords(TypedDict, total=False):
    """Options of Torch-TensorRT that are accepted: for a precision, or without an effect here."""

    enabled_precisions: object
    enable_autocast: bool
    autocast_low_precision_type: object

    use_python_runtime: bool | None

    device: object
    autocast_excluded_nodes: object
    autocast_max_depth_of_reduction: object
    autocast_calibration_dataloader: object
    use_explicit_typing: object
    truncate_double: object
    pass_through_build_failures: object
    use_fast_partitioner: object
    enable_experimental_decompositions: object
    assume_dynamic_shape_support: object
    debug: object
    lazy_engine_init: object
    make_refittable: object
    offload_module_to_cpu: object


class CompileOptions(SettingsKeywords, TorchTensorRTKeywords, total=False):
    """Keyword arguments of `compile` in addition to those in its signature."""


class AddEngineOptions(OneEngineKeywords, TorchTensorRTKeywords, total=False):
    """Keyword arguments of `files.add_engine` in addition to those in its signature."""
