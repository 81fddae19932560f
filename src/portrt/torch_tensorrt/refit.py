"""`refit_module_weights`: the weights of another program, without a build."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt.errors import CheckError, SettingsError
from portrt.numerics.compare import compare
from portrt.runtime.module import module_of
from portrt.torch_tensorrt.inputs import in_a_list


def refit_module_weights(
    compiled_module: torch.nn.Module | ExportedProgram,
    new_weight_module: ExportedProgram | torch.nn.Module,
    arg_inputs: Any = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    verify_output: bool = False,
    in_place: bool = False,
) -> Any:
    """Return a compiled module with the weights of another program, by `update_weights`.

    Engines that read weights from the program have them at once; others are removed, with a warning
    in the log, see docs/usage.md.

    Args:
        compiled_module: What `compile` or `load` returned.
        new_weight_module: The same model with other weights.
        arg_inputs, kwarg_inputs: Inputs to compare results on, with `verify_output`.
        verify_output: Whether the results are compared with those of `new_weight_module`. Engines
            are compared with their source on random inputs in any case.
        in_place: Whether `compiled_module` itself gets the weights; else a copy does.

    Raises:
        SettingsError: The module is not compiled, or there are no inputs to compare on.
        InputError: The weights do not fit the program; nothing is changed.
        CheckError: The results differ.
    """
    if not hasattr(compiled_module, "update_weights"):
        raise SettingsError(
            f"a {type(compiled_module).__qualname__} was given to refit_module_weights",
            "what compile or load returned",
            "compile the model first",
        )
    if verify_output and arg_inputs is None and kwarg_inputs is None:
        raise SettingsError(
            "verify_output=True without inputs",
            "arg_inputs or kwarg_inputs: tensors to compare results on",
            "give them, or leave verify_output out",
        )
    made: Any = compiled_module if in_place else copy.deepcopy(compiled_module)
    state = new_weight_module.state_dict
    made.update_weights(state() if callable(state) else state)
    if verify_output:
        call = (tuple(in_a_list(arg_inputs) or ()), dict(kwarg_inputs or {}))
        _verify(_module(made), _module(new_weight_module), *call)
    return made


def _module(program: Any) -> Any:
    return module_of(program) if isinstance(program, ExportedProgram) else program


def _verify(made: Any, wanted: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with torch.no_grad():
        pairs = zip(
            pytree.tree_leaves(made(*args, **kwargs)),
            pytree.tree_leaves(wanted(*args, **kwargs)),
            strict=True,
        )
    for index, (one, other) in enumerate(pairs):
        if not isinstance(other, torch.Tensor):
            continue
        row = compare(f"result {index}", one, other, "tf32" if other.is_cuda else None)
        if not row["ok"]:
            raise CheckError(
                f"{row['name']} differs by {row['max_rel']} from the model with the new weights",
                f"a relative difference of at most {row['tolerance']}",
                "compile that model: something besides its weights and buffers is different",
            )
