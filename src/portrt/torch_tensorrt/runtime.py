"""Context managers of `torch_tensorrt.runtime`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch

from portrt.runtime.policy import CONTEXT, ENV_CUDA_GRAPHS, cuda_graphs, effective
from portrt.torch_tensorrt.missing import missing
from portrt.torch_tensorrt.options import warn

_GRAPHS = 8
_PROCESS_CACHE = "TensorRT-RTX compiles its kernels anew in each process"


@contextmanager
def enable_cudagraphs(
    compiled_module: Any,
    *,
    cuda_graph_strategy: str | None = None,  # noqa: ARG001  (as there)
) -> Iterator[Any]:
    """Record engines as CUDA graphs and replay them, as `portrt.runtime.cuda_graphs` does.

    Args:
        compiled_module: What `compile` returned; it is what `with` gives.
        cuda_graph_strategy: No effect.
    """
    with cuda_graphs(_GRAPHS):
        yield compiled_module


def set_cudagraphs_mode(mode: bool) -> None:
    """Record CUDA graphs in this process, or no more: sets the variable PORTRT_CUDA_GRAPHS."""
    os.environ[ENV_CUDA_GRAPHS] = str(_GRAPHS if mode else 0)


def get_cudagraphs_mode() -> bool:
    """Return whether CUDA graphs are recorded here."""
    return bool(effective({}, CONTEXT.get()).cuda_graphs)


def get_whole_cudagraphs_mode() -> bool:
    """Return False: each engine has its own graphs; `torch.cuda.graph` records a whole program."""
    return False


class _Mode:
    """Context manager of something that is always so in portrt."""

    def __init__(self, given: Any = None) -> None:
        self._given = given

    def __enter__(self) -> Any:
        return self if self._given is None else self._given

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


def set_multi_device_safe_mode(mode: bool) -> AbstractContextManager[Any]:  # noqa: ARG001
    """Do nothing: an engine always runs on the device of its inputs."""
    return _Mode()


def enable_output_allocator(module: Any) -> AbstractContextManager[Any]:  # noqa: ARG001
    """Do nothing: results of data-dependent sizes need no mode."""
    return _Mode()


def enable_pre_allocated_outputs(module: Any) -> AbstractContextManager[Any]:  # noqa: ARG001
    """Warn that outputs are new tensors at each call; with CUDA graphs they are copies."""
    warn("enable_pre_allocated_outputs: outputs are allocated from torch's memory at each call")
    return _Mode()


def optimization_profile(module: Any, profile: Any = None) -> AbstractContextManager[Any]:
    """Return a context of the module; the profile is always chosen by the sizes of the inputs.

    Args:
        module: What `compile` returned.
        profile: None or "auto"; an index has no effect, with a warning.
    """
    if profile not in (None, "auto"):
        warn(f"optimization_profile({profile!r}): each call runs in the profile that has its sizes")
    return _Mode(module)


class _WeightStreaming(_Mode):
    """Context manager with a budget that has no effect."""

    total_device_budget = 0

    def __init__(self) -> None:
        super().__init__()
        self._budget = 0

    @property
    def device_budget(self) -> int:
        """Bytes of weights that are streamed: 0."""
        return self._budget

    @device_budget.setter
    def device_budget(self, value: int) -> None:
        self._budget = value

    def get_automatic_weight_streaming_budget(self) -> int:
        """Return 0."""
        return 0


def weight_streaming(module: Any) -> _WeightStreaming:  # noqa: ARG001
    """Warn that an engine has all its weights in GPU memory."""
    warn("weight_streaming: an engine has all its weights in GPU memory; a budget has no effect")
    return _WeightStreaming()


@dataclass(frozen=True)
class RuntimeSettings:
    """Settings of TensorRT-RTX's runtime; they have no effect.

    Attributes:
        dynamic_shapes_kernel_specialization_strategy: "lazy", "eager" or "none".
        cuda_graph_strategy: "disabled" or "whole_graph_capture".
        runtime_cache: Path of a cache of kernels.
    """

    dynamic_shapes_kernel_specialization_strategy: str = "lazy"
    cuda_graph_strategy: str = "disabled"
    runtime_cache: Any = None

    def merge(self, **overrides: Any) -> RuntimeSettings:
        """Return the settings with other values."""
        return replace(self, **overrides)


def runtime_config(target_or_targets: Any, **overrides: Any) -> AbstractContextManager[Any]:
    """Return a context of the modules; other settings than the defaults give a warning."""
    changed = RuntimeSettings(**overrides)
    if changed.cuda_graph_strategy != RuntimeSettings.cuda_graph_strategy:
        return enable_cudagraphs(_several(target_or_targets))
    if changed != RuntimeSettings():
        warn(f"runtime_config: {_PROCESS_CACHE}, by its defaults")
    return _Mode(_several(target_or_targets))


def set_dynamic_shapes_kernel_strategy(
    target_or_targets: Any, strategy: str
) -> AbstractContextManager[Any]:
    """Return a context of the modules, with a warning if the strategy is not "lazy"."""
    return runtime_config(target_or_targets, dynamic_shapes_kernel_specialization_strategy=strategy)


def runtime_cache(
    target_or_targets: Any,  # noqa: ARG001
    path: Any = "",  # noqa: ARG001
    autosave: bool = True,  # noqa: ARG001
) -> AbstractContextManager[Any]:
    """Warn that compiled kernels are not kept."""
    warn(f"runtime_cache: {_PROCESS_CACHE}, and nothing is written")
    return _Mode()


def _several(targets: Any) -> Any:
    several = isinstance(targets, Sequence) and not isinstance(targets, torch.nn.Module)
    return tuple(targets) if several else targets


def __getattr__(name: str) -> Any:
    raise missing(f"runtime.{name}")


__all__ = [
    "RuntimeSettings",
    "enable_cudagraphs",
    "enable_output_allocator",
    "enable_pre_allocated_outputs",
    "get_cudagraphs_mode",
    "get_whole_cudagraphs_mode",
    "optimization_profile",
    "runtime_cache",
    "runtime_config",
    "set_cudagraphs_mode",
    "set_dynamic_shapes_kernel_strategy",
    "set_multi_device_safe_mode",
    "weight_streaming",
]


def __dir__() -> list[str]:
    return __all__
