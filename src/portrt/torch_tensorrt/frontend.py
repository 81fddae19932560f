"""`compile`, `torch_compile` and `cross_compile_for_windows`, with Torch-TensorRT's arguments."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt.compiler.capture import capture
from portrt.compiler.compile import compile as compile_program
from portrt.compiler.package.save import save as save_program
from portrt.compiler.torch_compile import portrt_backend
from portrt.errors import SettingsError
from portrt.runtime.module import module_of
from portrt.torch_internals.dynamo import as_dynamo_error
from portrt.torch_tensorrt.inputs import in_a_list, placed
from portrt.torch_tensorrt.options import (
    device_for,
    keeps_all_in_pytorch,
    translated,
    warn,
    without_arguments,
)
from portrt.torch_tensorrt.parameters import PARAMETERS

logger = logging.getLogger(__name__)

_CAPTURED = ("default", "dynamo", "exported_program")


def compile(  # noqa: A001  (Torch-TensorRT's name)
    module: torch.nn.Module | ExportedProgram,
    ir: Any = "default",
    inputs: Any = None,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    enabled_precisions: Any = None,
    **kwargs: Any,
) -> Any:
    """Compile a model; call `portrt.compile` with arguments in the manner of Torch-TensorRT.

    Args:
        module: The model, or an ExportedProgram of it.
        ir: "default" or "dynamo" for torch.export, or "torch_compile" for `torch.compile`. What is
            no text is taken for `inputs`.
        inputs: Example tensors or `Input`s, one for each positional argument; one may stand alone.
        arg_inputs: The same as `inputs`.
        kwarg_inputs: Example keyword arguments.
        enabled_precisions: Dtypes, of which the lowest is `precision`.
        **kwargs: Options of Torch-TensorRT's `compile` or of `portrt.compile`; see
            docs/torch_tensorrt.md.

    Returns:
        A module; with `ir="torch_compile"` what `torch.compile` returns.

    Raises:
        SettingsError: An option is unknown or cannot be had; see also `portrt.compile`.
    """
    if inputs is None and not isinstance(ir, str):  # as the second argument of dynamo.compile
        inputs, ir = ir, "default"
    if enabled_precisions is not None:
        kwargs["enabled_precisions"] = enabled_precisions
    if ir == "torch_compile":
        return torch_compile(module, **kwargs)
    if ir not in _CAPTURED:
        raise SettingsError(
            f"ir is {ir!r}",
            "'default', 'dynamo' or 'torch_compile': portrt has no frontend for TorchScript or fx",
            "compile the torch.nn.Module, and save(..., output_format='torchscript') for "
            "TorchScript output",
        )
    return compile_exported(module, inputs, arg_inputs, kwarg_inputs, kwargs)


def compile_exported(
    module: Any,
    inputs: Any,
    arg_inputs: Any,
    kwarg_inputs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Any:
    """Call `portrt.compile`, with the options translated and the `Input`s on the model's device."""
    chosen = dict(options)
    given: dict[str, Any] = {"inputs": inputs, "arg_inputs": arg_inputs}
    given = {name: in_a_list(value) for name, value in given.items() if value is not None}
    given |= {} if kwarg_inputs is None else {"kwarg_inputs": kwarg_inputs}
    device = device_of(module, chosen.pop("device", None))
    given, taken = placed(given, device), translated(chosen)
    if not keeps_all_in_pytorch(taken):
        return compile_program(module, **given, **taken)
    program = capture(
        module,
        given.get("inputs", given.get("arg_inputs")),
        given.get("kwarg_inputs"),
        dynamic_shapes=taken.get("dynamic_shapes"),
        strict=taken.get("strict", False),
    )
    return program if taken.get("output_format") == "exported_program" else module_of(program)


def device_of(module: Any, wanted: Any) -> torch.device:
    """Return the device of the model's tensors; without any, `wanted`, or the CPU."""
    asked = device_for(wanted)
    state = getattr(module, "state_dict", {})
    tensors = pytree.tree_leaves(state() if callable(state) else state)
    found = next((item.device for item in tensors if isinstance(item, torch.Tensor)), None)
    if found is None:
        return asked or torch.device("cpu")
    if asked is not None and asked.type != found.type:
        warn(f"device={wanted!r}: the model is on {found}, and is compiled for it")
    return found


def compile_program_of(
    exported_program: ExportedProgram | torch.nn.Module,
    inputs: Any = None,
    *,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Compile an exported program; options as those of `compile`.

    Args:
        exported_program: The program, or a model.
        inputs: Example tensors or `Input`s, one for each positional argument.
        arg_inputs: The same as `inputs`.
        kwarg_inputs: Example keyword arguments.
        **kwargs: As those of `compile`.

    Returns:
        A module.

    Raises:
        SettingsError: As `compile`.
    """
    return compile_exported(exported_program, inputs, arg_inputs, kwarg_inputs, kwargs)


def with_parameters(function: Callable[..., Any], name: str, annotation: Any) -> Callable[..., Any]:
    """Return the function with the parameters of Torch-TensorRT in its signature, for `help`."""
    kind = inspect.Parameter.KEYWORD_ONLY
    own = inspect.signature(function)
    taken = list(own.parameters.values())
    named = [
        inspect.Parameter(item.name, kind, default=item.default)
        for item in PARAMETERS.values()
        if item.name not in own.parameters and item.default is not ...
    ]
    signature = own.replace(parameters=[*taken[:-1], *named, taken[-1]])
    vars(function).update(
        __signature__=signature.replace(return_annotation=annotation), __name__=name
    )
    function.__name__ = function.__qualname__ = name
    return function


def torch_compile(module: Any, **kwargs: Any) -> Any:
    """Call `torch.compile` with the backend of portrt.

    Args:
        module: The model.
        **kwargs: `dynamic`, `fullgraph`, and options as those of `compile`, by name or in
            `options`.

    Raises:
        SettingsError: As `compile`.
    """
    own = {name: kwargs.pop(name) for name in ("dynamic", "fullgraph") if name in kwargs}
    taken = _backend_options({**(kwargs.pop("options", None) or {}), **kwargs})
    if keeps_all_in_pytorch(taken):
        return torch.compile(module, backend="eager", **own)
    return torch.compile(module, backend=portrt_backend, options=taken, **own)


def _backend_options(options: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: value for name, value in options.items() if name != "device"}
    taken = without_arguments(translated(chosen))
    if not taken.get("dryrun", True):
        del taken["dryrun"]
    return taken


def backend(
    gm: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile a graph of Dynamo: the backend "torch_tensorrt" of `torch.compile`."""
    try:
        taken = _backend_options(options or {})
    except SettingsError as err:
        raise as_dynamo_error(err) from err
    if keeps_all_in_pytorch(taken):
        return gm.forward
    return portrt_backend(gm, example_inputs, options=taken, mode=mode)


def cross_compile_for_windows(
    module: torch.nn.Module,
    file_path: str,
    inputs: Any = None,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    enabled_precisions: Any = None,
    **kwargs: Any,
) -> None:
    """Compile a model with a TensorRT-RTX engine, and save it for Windows.

    NVIDIA documents that such engines run on Linux and Windows. No engine of portrt was ever run on
    Windows; `portrt check FILE --for os=windows,...` applies the documented rules.

    Args:
        module: The model, or an ExportedProgram of it.
        file_path: The file to write.
        inputs, arg_inputs, kwarg_inputs, enabled_precisions: As in `compile`.
        **kwargs: As those of `compile`.

    Raises:
        BackendUnavailableError: TensorRT-RTX is not installed here.
        SettingsError: As `compile`.
    """
    if enabled_precisions is not None:
        kwargs["enabled_precisions"] = enabled_precisions
    save_program(program_for_windows(module, inputs, arg_inputs, kwarg_inputs, kwargs), file_path)


def program_for_windows(
    module: Any, inputs: Any, arg_inputs: Any, kwarg_inputs: Any, options: Mapping[str, Any]
) -> Any:
    """Compile with a TensorRT-RTX engine, which is an error where it cannot be built."""
    chosen = {"engines": "tensorrt_rtx", "require_engines": True, **options}
    if "tensorrt_rtx" not in str(chosen["engines"]):
        raise SettingsError(
            f"engines is {chosen['engines']!r} for Windows",
            "'tensorrt_rtx' among them: no other engine that is built here runs there",
            "name it, or leave engines out",
        )
    logger.info("no engine of portrt was ever run on Windows; NVIDIA documents that they run there")
    return compile_exported(module, inputs, arg_inputs, kwarg_inputs, chosen)
