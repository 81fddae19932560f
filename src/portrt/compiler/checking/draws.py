"""Drawn inputs: other sizes and other values than those of the example inputs.

Integers stay within what the example shows, as they may be indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.compiler.checking.sizes import SizeChooser, Sizes
from portrt.graphs.program_inputs import user_input_nodes
from portrt.runtime.random_inputs import random_tensor

# Magnitude of large values: their squares and sums are finite in float32, and they in float16.
_LARGE = {torch.float16: 200.0}
_LARGE_OTHERWISE = 1e4
# A number below this in a tensor that is added to scores stands for "not to be seen".
_MASKED = -1e4


@dataclass(frozen=True)
class Draw:
    """Inputs of a program.

    Attributes:
        label: What is drawn, such as "smallest sizes".
        flat: The flat inputs.
        sizes: Name of a dynamic dimension -> its size.
        weight: Number of elements, relative to the example inputs.
    """

    label: str
    flat: tuple[Any, ...]
    sizes: Mapping[str, int]
    weight: float


def draws(program: ExportedProgram, flat: Sequence[Any]) -> Iterator[Draw]:
    """Yield drawn inputs, reproducibly; sizes and values in turn, the cheap ones first.

    Args:
        program: The captured program.
        flat: Its flat example inputs.
    """
    chooser = SizeChooser(program, flat)
    masks = _mask_inputs(program, flat)
    numbers = _number_inputs(program)
    every = set(range(len(flat)))
    kinds: list[tuple[str, _Change, set[int]]] = [
        ("extreme integers", _extremes, numbers),
        ("a masked row", _masked_row, masks),
        ("zeros and padding", _zeros, every),
        ("equal values", _ties, every),
        ("large and tiny values", _mixed, every),
        ("large values", _large, every),
    ]
    by_size = chooser.draws()
    by_value = iter([kind for kind in kinds if kind[2]])
    seed = 0
    while True:
        chosen, kind = next(by_size, None), next(by_value, None)
        if chosen is None and kind is None:
            return
        seed += 1
        if chosen is not None:
            label, sizes = chosen
            yield _draw(label, chooser, flat, sizes, _as_example, every, seed)
        if kind is not None:
            label, change, positions = kind
            yield _draw(label, chooser, flat, chooser.example, change, positions, seed)


# Called with the tensor of the example and a generator; None leaves it to be drawn from the
# example's elements.
_Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor | None]


def _draw(
    label: str,
    chooser: SizeChooser,
    flat: Sequence[Any],
    sizes: Sizes,
    change: _Change,
    positions: set[int],
    seed: int,
) -> Draw:
    generator = torch.Generator().manual_seed(seed)
    made: list[Any] = []
    for index, value in enumerate(flat):
        if not isinstance(value, torch.Tensor):
            made.append(chooser.value(index, sizes))
            continue
        shape = chooser.shape(index, sizes)
        fits = index in positions and shape == tuple(value.shape)
        found = change(value, generator) if fits else None
        made.append(_drawn_from(value, shape, generator) if found is None else found)
    weight = _elements(made) / max(_elements(flat), 1)
    return Draw(label, tuple(made), chooser.names(sizes), weight)


def _elements(flat: Sequence[Any]) -> int:
    return sum(value.numel() for value in flat if isinstance(value, torch.Tensor))


def _as_example(value: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
    return value


def _drawn_from(
    example: torch.Tensor, shape: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    """Return elements of the example in another order; sorted integers stay sorted."""
    if example.numel() == 0:
        return random_tensor(shape, example.dtype, generator).to(example.device)
    index = torch.randint(example.numel(), tuple(shape), generator=generator)
    made = example.detach().flatten()[index.to(example.device)]
    if _is_floating(example) or example.dtype == torch.bool or made.dim() == 0:
        return made
    if made.shape[-1] and example.dim() and bool((example.diff(dim=-1) >= 0).all()):
        made = made.sort(-1).values  # offsets, positions
        made[..., 0] = example.min()
    return made


def _is_floating(value: torch.Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _zeros(example: torch.Tensor, _generator: torch.Generator) -> torch.Tensor | None:
    """Return zeros of both signs; 0 for integers where the example has no negative ones."""
    if example.is_floating_point():
        made = torch.zeros(example.numel(), dtype=torch.float32, device=example.device)
        made[1::2] = -0.0
        return made.reshape(example.shape).to(example.dtype)
    if example.dtype == torch.bool or example.is_complex():
        return torch.zeros_like(example)
    if example.numel() == 0 or int(example.min()) < 0 or _is_sorted(example):
        return None
    return torch.zeros_like(example)


def _is_sorted(example: torch.Tensor) -> bool:
    return example.dim() > 0 and bool((example.diff(dim=-1) >= 0).all())


def _ties(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    """Return three different values."""
    if not example.is_floating_point() or example.numel() < 2:
        return None
    values = torch.tensor([-1.0, 0.0, 1.0], device=example.device) * _size_of(example)
    index = torch.randint(3, tuple(example.shape), generator=generator).to(example.device)
    return values[index].to(example.dtype)


def _mixed(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    """Return the example's values times powers of ten."""
    if not example.is_floating_point() or example.numel() == 0:
        return None
    powers = torch.randint(-8, 3, tuple(example.shape), generator=generator).to(example.device)
    made = example.detach().to(torch.float64) * 10.0**powers
    return _within(made, example)


def _large(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    """Return values of one large magnitude and both signs."""
    if not example.is_floating_point() or example.numel() == 0:
        return None
    made = torch.randn(tuple(example.shape), generator=generator, dtype=torch.float64)
    largest = _LARGE.get(example.dtype, _LARGE_OTHERWISE)
    return _within((made / made.abs().max() * largest).to(example.device), example)


def _within(made: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    largest = _LARGE.get(example.dtype, _LARGE_OTHERWISE)
    return made.clamp(-largest, largest).to(example.dtype)


def _size_of(example: torch.Tensor) -> float:
    finite = example.detach()[torch.isfinite(example.detach())].abs().to(torch.float64)
    return float(finite.median()) if finite.numel() and float(finite.median()) else 1.0


def _masked_row(example: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
    """Return the mask with one row in which nothing is to be seen."""
    made = example.clone()
    row = made[..., :1, :] if made.dim() > 1 else made
    low = torch.finfo(made.dtype).min if made.is_floating_point() else 0
    row.fill_(low)
    return made


def _extremes(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the smallest and largest integers of a dtype, and those around 0."""
    info = torch.iinfo(example.dtype)
    values = torch.tensor([info.min, info.max, 0, 1, max(info.min, -1)], dtype=example.dtype)
    index = torch.randint(len(values), tuple(example.shape), generator=generator)
    return values[index].to(example.device)


def _mask_inputs(program: ExportedProgram, flat: Sequence[Any]) -> set[int]:
    """Return the positions of inputs that look like masks of attention."""
    found = set()
    for index, (name, value) in enumerate(zip(user_input_nodes(program), flat, strict=True)):
        if not isinstance(value, torch.Tensor) or not value.numel() or value.dim() < 1:
            continue
        if value.is_floating_point():
            lowest = float(value.detach().min())
            if lowest <= _MASKED and float(value.detach().max()) <= 0:
                found.add(index)
        elif value.dtype == torch.bool or (
            "mask" in name and value.dtype in (torch.int64, torch.int32)
        ):
            found.add(index)
    return found


_ARITHMETIC = """
    add sub rsub mul neg abs sign maximum minimum clamp where bitwise_and bitwise_or bitwise_xor
    bitwise_not __and__ __or__ __xor__ __lshift__ __rshift__ bitwise_left_shift bitwise_right_shift
    eq ne lt le gt ge logical_and logical_or logical_not amax amin max min sum to _to_copy view
    reshape permute transpose unsqueeze squeeze expand clone contiguous flatten cat stack relu
    remainder floor_divide div
"""
_ARITHMETIC_OPERATORS = frozenset(f"aten.{name}" for name in _ARITHMETIC.split())


def _number_inputs(program: ExportedProgram) -> set[int]:
    """Return the positions of integer inputs that are computed with and are no indices."""
    found = set()
    for index, node in enumerate(user_input_nodes(program).values()):
        value = node.meta.get("val")
        integer = isinstance(value, torch.Tensor) and not (
            _is_floating(value) or value.dtype == torch.bool
        )
        if integer and _is_computed_with(node):
            found.add(index)
    return found


def _is_computed_with(start: torch.fx.Node) -> bool:
    """Return whether integers from a node go through arithmetic alone, until they are floats."""
    pending, seen = [start], {start}
    while pending:
        for user in pending.pop().users:
            if user.op == "output" or user in seen:
                continue
            seen.add(user)
            packet = str(getattr(user.target, "overloadpacket", user.target))
            if packet not in _ARITHMETIC_OPERATORS:
                return False
            value = user.meta.get("val")
            if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
                pending.append(user)
    return True
