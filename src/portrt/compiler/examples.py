"""Example inputs for torch.export."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from portrt.compiler.inputs import Input
from portrt.compiler.sizes.named_sizes import leaves_with_specs


def examples(tree: Any) -> Any:
    """Return the tree with an example tensor instead of each `Input`.

    A tensor that occurs twice is copied: torch.export merges inputs that are the same object, and
    the program would then ignore the second one.
    """
    leaves, spec = pytree.tree_flatten(tree)
    made: list[Any] = []
    for seed, leaf in enumerate(leaves):
        if isinstance(leaf, Input):
            made.append(leaf.example(seed))
        elif isinstance(leaf, torch.Tensor) and any(leaf is other for other in made):
            made.append(leaf.clone())
        else:
            made.append(leaf)
    return pytree.tree_unflatten(made, spec)


def without_tiny_sizes(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with dynamic sizes of 0 and 1 enlarged to 2 where the range has it.

    torch.export specializes example sizes of 0 and 1 to constants, and then refuses the range.
    `Dim.AUTO` stays as it is: there the constant may be what is wanted.

    Args:
        model: What the arguments are for.
        args, kwargs: Example tensors.
        dynamic_shapes: As `torch.export.export` takes it.
    """
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # torch.export reports it; a ScriptModule has no signature
        return args, kwargs
    if isinstance(dynamic_shapes, Mapping):
        specs = [dynamic_shapes.get(name) for name in bound]
    elif isinstance(dynamic_shapes, (tuple, list)):
        specs = list(dynamic_shapes)
    else:
        return args, kwargs
    pairs = [
        pair
        for value, spec in zip(bound.values(), specs, strict=False)
        for pair in leaves_with_specs(value, spec)
        if isinstance(pair[0], torch.Tensor)
    ]
    derived = {dim.root.__name__ for _, spec in pairs for _, dim in _dims(spec) if _is_derived(dim)}
    made = {id(leaf): _enlarged(leaf, spec, derived) for leaf, spec in pairs}
    enlarged: tuple[tuple[Any, ...], dict[str, Any]]
    enlarged = pytree.tree_map(lambda leaf: made.get(id(leaf), leaf), (args, kwargs))
    return enlarged


def _dims(spec: Any) -> Iterator[tuple[int, Any]]:
    yield from spec.items() if isinstance(spec, Mapping) else enumerate(spec or ())


def _is_derived(dim: Any) -> bool:
    return isinstance(dim, Dim) and hasattr(dim, "root")


def _enlarged(leaf: torch.Tensor, spec: Any, derived: set[str]) -> torch.Tensor:
    for axis, dim in _dims(spec):
        kind = getattr(getattr(dim, "type", None), "name", "")
        is_named = isinstance(dim, Dim) and not _is_derived(dim) and dim.__name__ not in derived
        if not (is_named or kind == "DYNAMIC") or not -leaf.dim() <= axis < leaf.dim():
            continue
        size, low, high = leaf.shape[axis], dim.min or 0, dim.max
        if size < 2 and (high is None or high >= 2):
            count = max(2, int(low))
            shape = list(leaf.shape)
            shape[axis] = count
            leaf = torch.cat([leaf] * count, axis) if size else leaf.new_zeros(shape)
    return leaf
