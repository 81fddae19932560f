"""Engines of TensorRT as bytes, for its own runtime: one engine, with names of its bindings."""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from portrt.compiler.backends.registry import builder
from portrt.compiler.capture import capture
from portrt.compiler.compile import compile as compile_program
from portrt.compiler.options.values import functions
from portrt.compiler.package.save import save as save_program
from portrt.errors import BackendUnavailableError, PartitionError, SettingsError
from portrt.files.extract_part import extract
from portrt.format.temp_file import temporary_folder
from portrt.graphs.flat_program import with_input_names
from portrt.runtime.calls import manifests_of
from portrt.torch_tensorrt.frontend import device_of
from portrt.torch_tensorrt.inputs import in_a_list, placed
from portrt.torch_tensorrt.options import translated

_SHAPES = ("dynamic_shapes", "profiles")


def convert_method_to_trt_engine(
    module: torch.nn.Module | ExportedProgram,
    method_name: str = "forward",
    inputs: Any = None,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    ir: str = "default",
    enabled_precisions: Any = None,
    **kwargs: Any,
) -> bytes:
    """Build one TensorRT engine of a whole model, and return it serialized.

    Args:
        module: The model, or an ExportedProgram of it.
        method_name: "forward".
        inputs, arg_inputs, kwarg_inputs, enabled_precisions: As in `compile`.
        ir: "default" or "dynamo".
        **kwargs: As those of `convert_exported_program_to_serialized_trt_engine`.

    Raises:
        SettingsError, PartitionError, BackendUnavailableError: As there.
    """
    if method_name != "forward" or ir not in ("default", "dynamo"):
        raise SettingsError(
            f"method_name is {method_name!r} and ir is {ir!r}",
            "'forward', and 'default' or 'dynamo'",
            "wrap another method in a module whose forward calls it",
        )
    if enabled_precisions is not None:
        kwargs["enabled_precisions"] = enabled_precisions
    return convert_exported_program_to_serialized_trt_engine(
        module, inputs, arg_inputs=arg_inputs, kwarg_inputs=kwarg_inputs, **kwargs
    )


def convert_exported_program_to_serialized_trt_engine(
    exported_program: ExportedProgram | torch.nn.Module,
    inputs: Any = None,
    *,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    arg_input_binding_names: Any = None,
    kwarg_input_binding_names: Mapping[str, Any] | None = None,
    output_binding_names: Any = None,
    **kwargs: Any,
) -> bytes:
    """Build one TensorRT engine of a whole program, and return it serialized.

    `tensorrt` builds it where it is installed with a GPU, else `tensorrt_rtx`; `engines` names
    another order.

    Args:
        exported_program: The program, or a model.
        inputs: Example tensors or `Input`s, one for each positional argument.
        arg_inputs: The same as `inputs`.
        kwarg_inputs: Example keyword arguments.
        arg_input_binding_names: Names of the engine's inputs, in the structure of the positional
            arguments.
        kwarg_input_binding_names: Names of further inputs, in the structure of the keyword
            arguments.
        output_binding_names: Names of the engine's outputs, in the structure of the results.
        **kwargs: Options as those of `compile`.

    Returns:
        What `trt.Runtime.deserialize_cuda_engine` takes; with `dryrun` nothing.

    Raises:
        PartitionError: Some of the model stays in PyTorch, or it has no operators.
        BackendUnavailableError: No TensorRT builds here.
        SettingsError: An option or a name cannot be used.
    """
    device = device_of(exported_program, kwargs.pop("device", None))
    args = placed(in_a_list(inputs if arg_inputs is None else arg_inputs), device)
    keywords = placed(kwarg_inputs, device)
    engine = _backend(kwargs.pop("engines", None))
    shapes = {name: kwargs.pop(name) for name in _SHAPES if name in kwargs}
    profiles = {"profiles": shapes["profiles"]} if "profiles" in shapes else {}
    captured = capture(
        exported_program, args, keywords, dynamic_shapes=shapes.get("dynamic_shapes")
    )
    signature = captured.graph_signature
    given = [spec.arg for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
    made = [spec.arg for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    chosen = _names((arg_input_binding_names or (), kwarg_input_binding_names or {}), given)
    outputs = _names(output_binding_names, made)
    program = captured
    if chosen:
        program = with_input_names(
            captured, [new or arg.name for new, arg in zip(chosen, given, strict=True)]
        )
        if args or keywords:
            args, keywords = pytree.tree_leaves((args or (), keywords or {})), None
    _check_apart(program, outputs)
    options = {**translated(kwargs), "require_full_compilation": True, "min_block_size": 1}
    options.pop("output_format", None)
    if outputs:
        options["passes"] = [*functions("passes", options.get("passes", ())), _Outputs(outputs)]
    compiled = compile_program(
        program,
        inputs=args,
        kwarg_inputs=keywords,
        engines=engine,
        output_format="exported_program",
        **profiles,
        **options,
    )
    if options.get("dryrun"):
        return b""
    _check_outputs(compiled, outputs)
    with temporary_folder("portrt-engine-") as folder:
        save_program(compiled, folder / "model.pt2", progress=False)
        extract(folder / "model.pt2", "plan", folder / "engine.plan")
        return (folder / "engine.plan").read_bytes()


def _backend(engines: Any) -> Any:
    """Return the engine to build: what was named, or the first TensorRT that builds here."""
    if engines is not None:
        return engines
    for name in ("tensorrt", "tensorrt_rtx"):
        if builder(name).can_build():
            return name
    raise BackendUnavailableError(
        "no TensorRT builds engines here",
        "TensorRT-RTX, or TensorRT with a GPU",
        "pip install 'portrt[tensorrt-rtx]'; portrt doctor lists what builds here",
    )


def _names(tree: Any, arguments: Sequence[Any]) -> list[str | None]:
    """Return a name for each argument, None for one that is no tensor; empty without names."""
    found = pytree.tree_leaves(tree)
    named = [name for name in found if name is not None]
    if not named:
        return []
    is_tensor = [isinstance(argument, TensorArgument) for argument in arguments]
    if len(found) != len(arguments) and len(named) == sum(is_tensor):
        rest = iter(named)
        found = [next(rest) if tensor else None for tensor in is_tensor]
    lacks = len(found) != len(arguments) or any(
        tensor and name is None for tensor, name in zip(is_tensor, found, strict=True)
    )
    wrong = [name for name in named if not isinstance(name, str) or not _is_name(name)]
    if lacks or wrong or len(set(named)) != len(named):
        raise SettingsError(
            f"{named} are names of bindings",
            f"{sum(is_tensor)} different names, one for each tensor in the order of the signature, "
            "that are identifiers and no keywords of Python",
            "name all of them, or none",
        )
    return found


def _check_apart(program: ExportedProgram, outputs: Sequence[str | None]) -> None:
    inputs = {node.name for node in program.graph.nodes if node.op == "placeholder"}
    both = sorted(inputs & {name for name in outputs if name})
    if both:
        raise SettingsError(
            f"{both} are names of outputs and of inputs",
            "names that no input or weight has",
            "choose other names for the outputs, or name the inputs, too",
        )


def _is_name(name: str) -> bool:
    """Return whether the graph of a program can have a name."""
    return name.isidentifier() and not keyword.iskeyword(name)


class _Outputs:
    """A graph pass that gives the results of the graph their names."""

    def __init__(self, names: Sequence[str | None]) -> None:
        self._names = names

    def __call__(self, module: torch.fx.GraphModule) -> None:
        results: Any = module.graph.output_node().args[0]
        chosen = list(results)[-len(self._names) :]  # before them are updates of buffers
        named = {node: name for node, name in zip(chosen, self._names, strict=True) if name}
        for node in module.graph.nodes:
            if node not in named and node.name in self._names:
                node.name = f"{node.name}_before"
        for node, name in named.items():
            if node.op != "placeholder":
                node.name = name


def _check_outputs(program: ExportedProgram, names: Sequence[str | None]) -> None:
    texts = list(manifests_of(program))
    if len(texts) != 1:
        raise PartitionError(
            f"the model has {len(texts)} engines",
            "one engine",
            "compile(..., report=True) lists what is in engines",
        )
    made = [item["name"] for item in json.loads(texts[0])["outputs"]]
    wanted = [name for name in names if name]
    if made[-len(wanted) or len(made) :] != wanted:  # before them are updates of buffers
        raise SettingsError(
            f"the engine has the outputs {made}",
            f"{wanted}: a different tensor for each, and none of them an input",
            "leave such a result out of the model, or out of the names",
        )
