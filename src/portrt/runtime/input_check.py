"""Checks of a call's inputs against the block's signature, and shapes of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch

from portrt.engines.base import UNKNOWN
from portrt.errors import InputError
from portrt.format import size_expr
from portrt.format.manifest import DataDependentSize, Dimension, InputSpec, Signature

Shapes = tuple[tuple[int, ...], ...]


def check_inputs(signature: Signature, inputs: Sequence[torch.Tensor]) -> None:
    """Raise InputError unless the inputs match the signature.

    Args:
        signature: Inputs of the block.
        inputs: Real tensors, or fake ones while a program is traced: symbolic sizes are not
            checked here, torch's own guards check them.
    """
    specs = signature.inputs
    if len(inputs) != len(specs):
        raise InputError(
            f"{signature.name} was given {len(inputs)} inputs",
            f"{len(specs)}: {', '.join(spec.name for spec in specs)}",
            "call the program as it was exported",
        )
    for spec, tensor in zip(specs, inputs, strict=True):
        if tensor.dtype != getattr(torch, spec.dtype):
            refuse_dtypes(signature, inputs)
        if tensor.device != inputs[0].device:
            refuse_devices(signature, inputs)
        if len(tensor.shape) != len(spec.shape):
            raise _shape_error(signature, spec, tensor, f"rank {len(spec.shape)}")
    for spec, tensor in zip(specs, inputs, strict=True):
        for axis, (wanted, found) in enumerate(zip(spec.shape, tensor.shape, strict=True)):
            if isinstance(found, int):
                expected = _refusal(signature, inputs, wanted, found)
                if expected:
                    raise _shape_error(signature, spec, tensor, f"{expected} in dimension {axis}")


def _refusal(
    signature: Signature, inputs: Sequence[torch.Tensor], wanted: Any, found: int
) -> str | None:
    """Return the expected size as text, or None if the size found is valid."""
    if isinstance(wanted, Dimension):
        if found >= wanted.min and (wanted.max is None or found <= wanted.max):
            return None
        upper = "any size" if wanted.max is None else str(wanted.max)
        return f"a size from {wanted.min} to {upper}"
    exact = size_of(signature, inputs, wanted)
    return None if not isinstance(exact, int) or exact == found else str(exact)


def output_shapes(
    signature: Signature,
    inputs: Sequence[torch.Tensor],
    meaning: Mapping[str, Callable[..., Any]] = size_expr.NUMBERS,
    unknown: Callable[[DataDependentSize], Any] = lambda _: UNKNOWN,
) -> Shapes:
    """Compute the shapes of a block's outputs for inputs that `check_inputs` accepted.

    Args:
        signature: Inputs and outputs of the block.
        inputs: Inputs of the call.
        meaning: Implementation of the operators in size expressions; with a symbolic one the result
            has symbols where the inputs' sizes are symbolic.
        unknown: Returns the size for a data-dependent one; -1 for a session.

    Raises:
        InputError: An output would have a negative size, or one that cannot be computed.
    """
    shapes: list[tuple[Any, ...]] = []
    for spec in signature.outputs:
        shape = [
            size
            if isinstance(size, DataDependentSize)
            else size_of(signature, inputs, size, meaning)
            for size in spec.shape
        ]
        if any(isinstance(size, int) and size < 0 for size in shape):
            _refuse_sizes(
                signature, inputs, f"output {spec.name!r} would have the shape {tuple(shape)}"
            )
        shapes.append(
            tuple(
                [unknown(size) if isinstance(size, DataDependentSize) else size for size in shape]
            )
        )
    return tuple(shapes)


def size_of(
    signature: Signature,
    inputs: Sequence[torch.Tensor],
    tree: size_expr.Tree,
    meaning: Mapping[str, Callable[..., Any]] = size_expr.NUMBERS,
) -> Any:
    """Evaluate a size expression for these inputs: an int, or a symbol with a symbolic `meaning`.

    Raises:
        InputError: The size cannot be computed: division by zero, or overflow.
    """
    try:
        return size_expr.evaluate(tree, lambda index, axis: inputs[index].shape[axis], meaning)
    except ArithmeticError as err:
        _refuse_sizes(signature, inputs, f"a size cannot be computed ({err})")


def _refuse_sizes(signature: Signature, inputs: Sequence[torch.Tensor], fact: str) -> NoReturn:
    listed = ", ".join(
        f"{spec.name} {tuple(tensor.shape)}"
        for spec, tensor in zip(signature.inputs, inputs, strict=True)
    )
    raise InputError(
        f"with these inputs of {signature.name}, {listed}, {fact}",
        "inputs large enough for every step of the model",
        "give larger inputs",
    )


def refuse_dtypes(signature: Signature, inputs: Sequence[torch.Tensor]) -> NoReturn:
    """Raise InputError for the first input whose dtype is wrong."""
    for spec, tensor in zip(signature.inputs, inputs, strict=True):
        wanted = getattr(torch, spec.dtype)
        if tensor.dtype != wanted:
            break
    raise InputError(
        f"input {spec.name!r} of {signature.name} is {tensor.dtype}",
        f"{wanted}, as the program was compiled",
        f"convert it: {spec.name}.to({wanted})",
    )


def refuse_devices(signature: Signature, inputs: Sequence[torch.Tensor]) -> NoReturn:
    """Raise an InputError that lists the device of each input."""
    listed = ", ".join(
        f"{spec.name!r} on {tensor.device}"
        for spec, tensor in zip(signature.inputs, inputs, strict=True)
    )
    raise InputError(
        f"the inputs of {signature.name} are on several devices: {listed}",
        "all inputs on one device",
        "move them with .to(device)",
    )


def _shape_error(
    signature: Signature, spec: InputSpec, tensor: torch.Tensor, wanted: str
) -> InputError:
    return InputError(
        f"input {spec.name!r} of {signature.name} has shape {tuple(tensor.shape)}",
        wanted,
        "give a tensor within the shapes that the program was compiled for, or compile it again "
        "with a wider range",
    )
