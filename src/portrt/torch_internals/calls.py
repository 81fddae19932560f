"""Private torch APIs on the path of a call: interception, streams, and memory."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger(__name__)


def is_tracing() -> bool:
    """Return whether torch.export or torch.jit.trace is tracing this code."""
    untyped: Any = torch.jit
    return torch.compiler.is_exporting() or bool(untyped.is_tracing())


def compiled_cuda_function(source: str, name: str, device: torch.device) -> ctypes.c_void_p | None:
    """Compile a kernel with torch and return the driver's handle; None if torch cannot.

    The callable that `torch.cuda._compile_kernel` returns takes 35 to 55 us a launch.
    """
    compile_kernel: Any = getattr(torch.cuda, "_compile_kernel", None)
    if compile_kernel is None:
        return None
    try:
        with torch.cuda.device(device):
            kernel = compile_kernel(source, name)
    except Exception:  # no NVRTC beside this torch, for instance
        logger.debug("no kernel %s", name, exc_info=True)
        return None
    _kernels.append(kernel)  # keeps its CUDA module loaded
    function: ctypes.c_void_p | None = kernel.func
    return function


_kernels: list[Any] = []


def empty_strided_on(device_type: str) -> Callable[..., torch.Tensor]:
    """Return a function (sizes, strides, dtype) -> new tensor on the current device of a type.

    Inductor's code calls it instead of `torch.empty_strided`: it takes a third of the time, and
    does not release the GIL, which a thread would have to wait to reacquire.
    """
    from torch._C._dynamo import guards

    def slowly(sizes: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> torch.Tensor:
        return torch.empty_strided(sizes, strides, dtype=dtype, device=device_type)

    found: Callable[..., torch.Tensor]
    found = getattr(guards, f"_empty_strided_{device_type}", slowly)
    return found


class _Function:
    """What an operator calls instead of its function; the same in all other respects.

    Args:
        function: The operator's own.
        call: What is called instead.
    """

    def __init__(self, function: Any, call: Callable[..., Any]) -> None:
        self._function = function
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __hash__(self) -> int:  # torch hashes an operator by its function
        return hash(self._function)

    def __eq__(self, other: object) -> bool:
        return self is other or bool(self._function == other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


def call_first(operator: Any, make: Callable[[Any], Callable[..., Any]]) -> None:
    """Have calls of an operator from Python, of itself and of its default overload, go elsewhere.

    An operator's kernels are called through torch's dispatcher, which translates all arguments for
    each that is written in Python.

    Args:
        operator: The operator, such as `torch.ops.portrt.execute_engine`.
        make: Gets a function that calls the dispatcher, and returns what is called instead.
    """
    for item in (operator, operator.default):
        item._op = _Function(item._op, make(item._op))


def function_of(operator: Any) -> Callable[..., Any]:
    """Return what calls an operator's overload, without the method of the object between."""
    function: Callable[..., Any] = operator._op
    return function


def nothing_intercepts() -> bool:
    """Return whether no mode, transform, tracing or global module hook intercepts operators."""
    return (
        _dispatch_modes() == 0
        and _function_modes() == 0
        and _transform() is None
        and _tracing_state() is None
        and not _global_hooks()
    )


_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack

_function_modes: Callable[[], int] = torch._C._len_torch_function_stack

_transform: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack

_tracing_state: Callable[[], Any] = torch._C._get_tracing_state

_global_hooks: Callable[[], bool] = torch.nn.modules.module._has_any_global_hook

# Device index -> handle of this thread's current stream, in 0.2 us; the public API takes 5 us.
# Then the index of the current device. A torch without CUDA lacks both.
current_stream_handle: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", int)

current_device_index: Callable[[], int] = getattr(torch._C, "_cuda_getDevice", int)

is_capturing: Callable[[], bool] = getattr(torch._C, "_cuda_isCurrentStreamCapturing", bool)


def not_traced(function: Any) -> None:
    """Keep Dynamo from tracing a Python function that a compiled graph calls, and what it calls."""
    frames: Any = torch._C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
