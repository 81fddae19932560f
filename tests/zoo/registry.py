"""What an entry of the zoo is: a model, its inputs for given sizes, and which sizes vary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.export import Dim

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Entry:
    """A model of a tiny random configuration, and what it is called with.

    Attributes:
        model: In eval mode.
        inputs: Named sizes -> keyword arguments, random ones at each call.
        dims: Name of a size -> (smallest, the one to compile with, largest).
        axes: Argument -> {axis: name of a size}, or {axis: (factor, name)} for a multiple of it,
            or {axis: (factor, name, offset)}; nested like the argument. Arguments that are not
            named have no dynamic axis.
        tolerance: Largest difference to eager, over the largest number of the output.
        why_not_one: Why the model is not expected to be one engine; "" where it is.
        fixed: Sizes that the model itself fixes although they could vary, and why.
    """

    model: nn.Module
    inputs: Callable[..., dict[str, Any]]
    dims: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    axes: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-4
    why_not_one: str = ""
    fixed: str = ""

    def best(self) -> dict[str, int]:
        """The sizes that the model is compiled with."""
        return {name: opt for name, (_, opt, _) in self.dims.items()}

    def other_sizes(self) -> list[dict[str, int]]:
        """Sizes within the ranges: all smallest, all largest, and each largest alone."""
        bounds = self.dims.items()
        found = [{n: low for n, (low, _, _) in bounds}, {n: high for n, (_, _, high) in bounds}]
        found += [
            {n: (high if n == name else low) for n, (low, _, high) in bounds} for name in self.dims
        ]
        return [sizes for index, sizes in enumerate(found) if sizes not in found[:index]]

    def dynamic_shapes(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """For `torch.export`, one entry an argument."""
        dims = {name: Dim(name, min=low, max=high) for name, (low, _, high) in self.dims.items()}
        return {
            name: _shapes(self.axes.get(name), value, dims) for name, value in arguments.items()
        }


def _shapes(axes: Any, value: Any, dims: Mapping[str, Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return {axis: _dim(spec, dims) for axis, spec in (axes or {}).items()} or None
    if isinstance(value, dict):
        return {key: _shapes((axes or {}).get(key), item, dims) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        given = axes or [None] * len(value)
        return type(value)(_shapes(a, item, dims) for a, item in zip(given, value, strict=True))
    return None


def _dim(spec: Any, dims: Mapping[str, Any]) -> Any:
    if isinstance(spec, str):
        return dims[spec]
    factor, name, *rest = spec
    found = dims[name] if factor == 1 else factor * dims[name]
    return found + rest[0] if rest else found


@dataclass(frozen=True)
class Listed:
    """An entry's name, kind and maker; made only where it is wanted."""

    name: str
    kind: str
    make: Callable[[], Entry]
    quick: bool

    def entry(self) -> Entry:
        """The entry, with the same random weights each time."""
        torch.manual_seed(0)
        made = self.make()
        made.model.eval()
        return made


ZOO: dict[str, Listed] = {}


def zoo(kind: str, *, quick: bool = False) -> Callable[[Callable[[], Entry]], Callable[[], Entry]]:
    """Register a function that makes an entry, by its name.

    Args:
        kind: The group that the table lists it in.
        quick: Whether a plain `pytest` takes it too; the others are marked slow.
    """

    def add(make: Callable[[], Entry]) -> Callable[[], Entry]:
        name = make.__name__
        assert name not in ZOO, name
        ZOO[name] = Listed(name, kind, make, quick)
        return make

    return add


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def ids(vocabulary: int, *shape: int) -> torch.Tensor:
    """Random tokens; the three smallest are left out, which often are special ones."""
    return torch.randint(3, vocabulary, shape)


def padded_mask(batch: int, length: int) -> torch.Tensor:
    """Ones, with the end of the first row masked out."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length // 2 + 1 :] = 0
    return mask


def import_all() -> None:
    """Import every file of entries."""
    from zoo import diffusion, multimodal, plain, sound, spectral, text, vision  # noqa: F401


def names() -> Sequence[str]:
    import_all()
    return list(ZOO)
