"""Random inputs of a block or a program, with sizes in the ranges of its signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.errors import InputError, brief
from portrt.format import size_expr
from portrt.format.manifest import Dimension, Signature, decode
from portrt.graphs.program_inputs import user_input_nodes
from portrt.runtime.calls import engine_calls


def random_block_inputs(
    signature: Signature,
    seed: int,
    device: torch.device | str = "cpu",
    bound: str = "opt",
    *,
    profile: int = 0,
) -> tuple[torch.Tensor, ...]:
    """Return random inputs of a block; integers are 0 or 1, valid indices of any table.

    Args:
        signature: Inputs of the block.
        seed: Seed of the random generator.
        device: Device of the returned tensors.
        bound: "opt" for the sizes that engines are tuned for, or "min" for the smallest ones.
        profile: Index of the optimization profile.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes: list[list[int]] = []
    for spec in signature.inputs:
        shapes.append([])
        for size in spec.shape:
            tree = _bound_of(size, bound, profile) if isinstance(size, Dimension) else size
            try:
                shapes[-1].append(int(size_expr.evaluate(tree, lambda i, a: shapes[i][a])))
            except IndexError as err:
                raise InputError(
                    f"a size of input {spec.name!r:.80} is computed from a size after it",
                    "sizes that are computed from those before them",
                    "give inputs, or compile the model again",
                ) from err
    return tuple(
        random_tensor(shape, getattr(torch, spec.dtype), generator).to(device)
        for spec, shape in zip(signature.inputs, shapes, strict=True)
    )


def _bound_of(size: Dimension, bound: str, profile: int) -> int:
    minimum, opt, _ = size.profiles[profile] if size.profiles else (size.min, size.opt, size.max)
    return minimum if bound == "min" else opt


def random_inputs(program: ExportedProgram, seed: int) -> list[Any]:
    """Return flat random inputs with the sizes of the example inputs, reproducible by `seed`.

    Floating-point values are normally distributed; integers are 0 or 1, valid indices of any table;
    an input that is not a tensor has the value it was exported with.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_random(node, generator) for node in user_input_nodes(program).values()]


def _random(node: torch.fx.Node, generator: torch.Generator) -> Any:
    value = node.meta.get("val")
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        return torch_internals.hint_of(value)
    if not isinstance(value, torch.Tensor):
        return value
    shape = [torch_internals.hint_of(size) or 1 for size in value.shape]
    return random_tensor(shape, value.dtype, generator)


def random_tensor(
    shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """Return normally distributed values; integers are 0 or 1, valid indices of any table.

    Raises:
        InputError: There is no memory for them.
    """
    try:
        return _random_tensor(shape, dtype, generator)
    except RuntimeError as err:
        raise InputError(
            f"an input of the sizes {brief(list(shape))} cannot be made: {err}",
            "sizes for which there is memory",
            "give inputs, or compile the model for smaller opt sizes",
        ) from err


def _random_tensor(
    shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def sample_inputs(
    program: ExportedProgram, shapes: Mapping[str, Sequence[int]], seed: int
) -> list[Any]:
    """Return flat random inputs; integers are 0 or 1.

    Args:
        program: Program to call with the inputs.
        shapes: Input name -> its shape. A size shared by several inputs need be given only once.
            Other sizes are those that the engines are tuned for, or those of the example inputs.
        seed: Seed of the random generator.

    Raises:
        InputError: A shape is for an unknown input, or has another rank than the input.
    """
    nodes = user_input_nodes(program)
    _check(nodes, shapes)
    sizes = _opt_sizes(program)
    for name, shape in shapes.items():
        for size, number in zip(nodes[name].meta["val"].shape, shape, strict=True):
            if isinstance(size, torch.SymInt):
                sizes[torch_internals.expression_of(size)] = number
    generator = torch.Generator().manual_seed(seed)
    return [
        _random_value(node.meta.get("val"), shapes.get(name), sizes, generator)
        for name, node in nodes.items()
    ]


def _check(nodes: Mapping[str, torch.fx.Node], shapes: Mapping[str, Sequence[int]]) -> None:
    for name, shape in shapes.items():
        value = nodes[name].meta.get("val") if name in nodes else None
        if not isinstance(value, torch.Tensor):
            tensors = [n for n, it in nodes.items() if isinstance(it.meta.get("val"), torch.Tensor)]
            raise InputError(
                f"a shape is given for {name!r}, which is not a tensor input",
                f"one of {', '.join(tensors)}",
                "correct the name",
            )
        if len(shape) != value.dim():
            raise InputError(
                f"the shape {tuple(shape)} is given for {name!r}",
                f"{value.dim()} sizes, as in {tuple(map(str, value.shape))}",
                "give one size for each dimension",
            )


def _opt_sizes(program: ExportedProgram) -> dict[Any, int]:
    """Return symbolic size -> the opt size of the blocks' engines."""
    found: dict[Any, int] = {}
    for call in engine_calls(program):
        for spec, node in zip(decode(call.args[2]).inputs, call.args[0], strict=False):
            shape = getattr(node.meta.get("val"), "shape", ())
            for size, real in zip(spec.shape, shape, strict=False):
                if isinstance(size, Dimension) and isinstance(real, torch.SymInt):
                    found.setdefault(torch_internals.expression_of(real), size.opt)
    return found


def _random_value(
    value: Any, shape: Sequence[int] | None, sizes: Mapping[Any, int], generator: torch.Generator
) -> Any:
    if not isinstance(value, torch.Tensor):
        return _size(value, sizes)
    shape = shape or [_size(size, sizes) for size in value.shape]
    return random_tensor(shape, value.dtype, generator)


def _size(size: Any, sizes: Mapping[Any, int]) -> Any:
    if not isinstance(size, (torch.SymInt, torch.SymFloat)):
        return size
    if isinstance(size, torch.SymInt):
        expression = torch_internals.expression_of(size)
        number = sizes.get(expression, expression.subs(sizes))
        if isinstance(number, int) or number.is_Integer:
            return int(number)
    return torch_internals.hint_of(size) or 1
