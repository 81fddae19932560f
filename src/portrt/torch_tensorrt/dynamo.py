"""`torch_tensorrt.dynamo`: the same functions for exported programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.capture import capture
from portrt.compiler.package.save import program_of
from portrt.compiler.package.save import save as save_program
from portrt.torch_tensorrt.debugger import Debugger
from portrt.torch_tensorrt.files import load_cross_compiled_exported_program
from portrt.torch_tensorrt.frontend import (
    compile_program_of,
    device_of,
    program_for_windows,
    with_parameters,
)
from portrt.torch_tensorrt.inputs import in_a_list, placed
from portrt.torch_tensorrt.missing import missing
from portrt.torch_tensorrt.refit import refit_module_weights
from portrt.torch_tensorrt.serialized_engine import (
    convert_exported_program_to_serialized_trt_engine,
)

compile = with_parameters(compile_program_of, "compile", torch.nn.Module)  # noqa: A001


def trace(
    mod: torch.nn.Module,
    inputs: Any = None,
    *,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> ExportedProgram:
    """Capture a model by torch.export.

    Args:
        mod: The model, in eval mode.
        inputs: Example tensors or `Input`s, one for each positional argument.
        arg_inputs: The same as `inputs`.
        kwarg_inputs: Example keyword arguments.
        **kwargs: `dynamic_shapes` and `strict`, as `torch.export.export` takes them; `device`.
            Others have no effect.

    Raises:
        CaptureError: torch.export cannot capture the model.
        SettingsError: The arguments do not fit the model.
    """
    device = device_of(mod, kwargs.get("device"))
    return capture(
        mod,
        placed(in_a_list(inputs if arg_inputs is None else arg_inputs), device),
        placed(kwarg_inputs, device),
        dynamic_shapes=kwargs.get("dynamic_shapes"),
        strict=kwargs.get("strict", False),
    )


def export(gm: Any, **kwargs: Any) -> ExportedProgram:  # noqa: ARG001  (a program has its inputs)
    """Return the program of a module that `compile` returned.

    Raises:
        SettingsError: It is no such module.
    """
    return program_of(gm)


def cross_compile_for_windows(
    exported_program: ExportedProgram,
    inputs: Any = None,
    *,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Compile with a TensorRT-RTX engine; see `torch_tensorrt.cross_compile_for_windows`.

    Args:
        exported_program: The program.
        inputs, arg_inputs, kwarg_inputs, **kwargs: As in `compile`.

    Returns:
        A module, for `save_cross_compiled_exported_program`.
    """
    return program_for_windows(exported_program, inputs, arg_inputs, kwarg_inputs, kwargs)


def save_cross_compiled_exported_program(gm: torch.nn.Module, file_path: str) -> None:
    """Write what `cross_compile_for_windows` returned to a file."""
    save_program(gm, file_path)


def __getattr__(name: str) -> Any:
    raise missing(f"dynamo.{name}")


__all__ = [
    "Debugger",
    "compile",
    "convert_exported_program_to_serialized_trt_engine",
    "cross_compile_for_windows",
    "export",
    "load_cross_compiled_exported_program",
    "refit_module_weights",
    "save_cross_compiled_exported_program",
    "trace",
]


def __dir__() -> list[str]:
    return __all__
