"""capture: nn.Module or ExportedProgram -> ExportedProgram."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt import torch_internals
from portrt.compiler.capture_errors import capture_error
from portrt.compiler.examples import examples, without_tiny_sizes
from portrt.compiler.inputs import Input
from portrt.compiler.sizes.refused_sizes import fixed_symbols, warn_of_refused_sizes
from portrt.compiler.sizes.requested_ranges import log_differences
from portrt.errors import SettingsError
from portrt.graphs.recurrent import keep_recurrent_layers
from portrt.graphs.torch_error import TorchError

logger = logging.getLogger(__name__)

_DimHint = type(torch.export.Dim.AUTO)
_COLLECTIONS = (torch.export.ShapesCollection, torch.export.AdditionalInputs)


def capture(
    model: torch.nn.Module | ExportedProgram,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    strict: bool = False,
    narrow: bool = True,
) -> ExportedProgram:
    """Export `model` with `torch.export`; an ExportedProgram is returned as it is.

    Args:
        model: Should be in eval mode; in training mode it is captured as it is, with a warning.
        args: Positional arguments: tensors or `Input`s (nested in containers, if the model takes
            those), and whatever else `torch.export` takes.
        kwargs: Keyword arguments, of the same kinds as `args`.
        dynamic_shapes: As `torch.export.export` takes it. Only where no `Input` is dynamic.
        strict: As `torch.export.export` takes it.
        narrow: Narrow or join the ranges of `Input`s, with a warning, where torch finds that the
            model does not take them as they are.

    Raises:
        CaptureError: torch could not export the model; its error is the cause.
        SettingsError: The arguments do not fit the model or each other.
    """
    started = time.perf_counter()
    if isinstance(model, ExportedProgram):
        if dynamic_shapes is not None:
            raise SettingsError(
                "dynamic_shapes was given together with an ExportedProgram",
                "an ExportedProgram alone: it already has its dynamic shapes",
                "pass dynamic_shapes to torch.export.export, or pass the nn.Module to compile",
            )
        warn_of_refused_sizes(model)
        return _admitting_one(model)
    if not isinstance(model, torch.nn.Module):
        raise SettingsError(
            f"the model is a {type(model).__module__}.{type(model).__qualname__}",
            "a torch.nn.Module or a torch.export.ExportedProgram",
            "wrap a function in a module whose forward calls it",
        )
    if args is None and kwargs is None:
        raise SettingsError(
            "no inputs were given",
            "inputs=[...], or arg_inputs=(...) and kwarg_inputs={...}: tensors or portrt.Input",
            "pass one example tensor, or one portrt.Input, for each argument of the model",
        )
    if isinstance(args, (torch.Tensor, Input)):
        raise SettingsError(
            f"inputs is one {type(args).__name__}",
            "a list or tuple with one entry for each positional argument",
            "write inputs=[x]",
        )
    args, kwargs = tuple(args or ()), dict(kwargs or {})
    if dynamic_shapes is None:
        dynamic_shapes = _dynamic_shapes_of_inputs(model, args, kwargs)
    elif any(isinstance(leaf, Input) and leaf.dynamic_axes for leaf in _leaves((args, kwargs))):
        raise SettingsError(
            "dynamic_shapes was given together with a dynamic portrt.Input",
            "one of the two",
            "use Input(shape=...) or tensors beside dynamic_shapes",
        )
    example_args, example_kwargs = examples((args, kwargs))
    example_args, example_kwargs = without_tiny_sizes(
        model, example_args, example_kwargs, dynamic_shapes
    )
    if model.training:
        logger.warning("the model is in training mode; it is compiled as it is. Call .eval() first")

    def export(shapes: Any) -> ExportedProgram:
        with (
            torch.no_grad(),
            keep_recurrent_layers(),
            torch_internals.sizes_of_several_masks(),
        ):
            return torch.export.export(
                model, example_args, example_kwargs, dynamic_shapes=shapes, strict=strict
            )

    program = _exported(export, dynamic_shapes, (model, args, kwargs), narrow=narrow)
    warn_of_refused_sizes(program)
    seconds = time.perf_counter() - started
    logger.info("captured %d nodes in %.2f s", len(program.graph.nodes), seconds)
    if isinstance(dynamic_shapes, _COLLECTIONS):
        collection: Any = dynamic_shapes  # torch's method has no types
        dynamic_shapes = collection.dynamic_shapes(model, example_args, example_kwargs)
    hints = any(isinstance(leaf, _DimHint) for leaf in _leaves(dynamic_shapes))
    return _admitting_one(program) if hints else program


def _exported(
    export: Callable[[Any], ExportedProgram],
    dynamic_shapes: Any,
    given: tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]],
    *,
    narrow: bool,
) -> ExportedProgram:
    """Call torch.export; see `_exported_otherwise` for ranges that it refuses."""
    try:
        return export(dynamic_shapes)
    except Exception as err:
        found = _exported_otherwise(err, export, dynamic_shapes, given, narrow=narrow)
        if found is None:
            raise capture_error(given[0], err, lambda: export(dynamic_shapes)) from err
        return found


def _exported_otherwise(
    err: Exception,
    export: Callable[[Any], ExportedProgram],
    dynamic_shapes: Any,
    given: tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]],
    *,
    narrow: bool,
) -> ExportedProgram | None:
    """Return a program for ranges that torch.export refused; None if there is none.

    First with sizes of which torch assumes nothing, so that 0 and 1 are like others. Then, for
    ranges of `Input`s, with the sizes that torch finds to be equal, and the ranges that it finds.
    """
    if "onstraints violated" not in str(err):
        return None
    with torch_internals.oblivious_to_size_one(), contextlib.suppress(Exception):
        return export(dynamic_shapes)
    model, args, kwargs = given
    inputs = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Input)]
    if not narrow or not any(leaf.dynamic_axes for leaf in inputs):
        return None
    fixed: set[tuple[int, int]] = set()
    for _ in range(2):
        shapes = _shapes_of_inputs(model, args, kwargs, _inferred(fixed))
        with torch_internals.oblivious_to_size_one():
            try:
                program = export(shapes)
            except Exception:
                logger.debug("torch.export fails without the ranges, too", exc_info=True)
                return None
        more = _fixed_axes(program)
        if not more:
            break
        fixed |= more
    log_differences(program, args, kwargs, TorchError.of(err).cause)
    return program


def _fixed_axes(program: ExportedProgram) -> set[tuple[int, int]]:
    """Return (flat input, axis) of the dynamic sizes that the program's guards fix."""
    fixed = fixed_symbols(program)
    found = set()
    for index, value in enumerate(torch_internals.user_input_values(program)):
        shape: Sequence[Any] = value.shape if isinstance(value, torch.Tensor) else ()
        for axis, size in enumerate(shape):
            if isinstance(size, torch.SymInt) and torch_internals.expression_of(size) in fixed:
                found.add((index, axis))
    return found


def _inferred(fixed: set[tuple[int, int]]) -> Callable[[Any], Any]:
    """Return a function from a leaf to its dynamic shapes, inferred within the requested ranges.

    It must be called for the leaves in order.
    """
    count = itertools.count()

    def shapes_of(leaf: Any) -> Any:
        index = next(count)
        if not isinstance(leaf, Input):
            return None
        return {
            axis: torch.export.Dim.AUTO(min=leaf.min_shape[axis], max=leaf.max_shape[axis])
            for axis in leaf.dynamic_axes
            if (index, axis) not in fixed
        }

    return shapes_of


def _admitting_one(program: ExportedProgram) -> ExportedProgram:
    """Return the program with a lower bound of 1 for dynamic sizes whose bound is 2.

    torch.export assumes sizes of at least 2 where the user has set no range (`Dim.AUTO`), although
    the exported program works for 1.
    """
    ranges = {
        symbol: type(bounds)(1, bounds.upper) if bounds.lower == 2 else bounds
        for symbol, bounds in program.range_constraints.items()
    }
    return torch_internals.with_ranges(program, ranges)


def _leaves(tree: Any) -> list[Any]:
    return pytree.tree_leaves(tree)


def _dynamic_shapes_of_inputs(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Return the dynamic_shapes that the `Input`s describe, or None if none of them is dynamic."""
    if not any(isinstance(leaf, Input) and leaf.dynamic_axes for leaf in _leaves((args, kwargs))):
        return None
    dims: dict[str, Any] = {}

    def shapes_of(leaf: Any) -> Any:
        return leaf.dynamic_shapes(dims) if isinstance(leaf, Input) else None

    return _shapes_of_inputs(model, args, kwargs, shapes_of)


def _shapes_of_inputs(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shapes_of: Callable[[Any], Any],
) -> Any:
    """Return the arguments of forward, by name, with the shapes of each leaf in its place."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except ValueError:  # a ScriptModule has no signature; torch.export reports it
        return pytree.tree_map(shapes_of, args)
    except TypeError as err:
        raise SettingsError(
            f"the inputs do not fit {type(model).__qualname__}.forward: {err}",
            f"arguments for forward{inspect.signature(model.forward)}",
            "pass the inputs in the order of the signature, or by name in kwarg_inputs",
        ) from err
    return pytree.tree_map(shapes_of, dict(bound.arguments))
