"""Checks of option values: each returns the normalized value, see `fields.Parse`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from portrt import arguments
from portrt.compiler.options.fields import Parse
from portrt.errors import SettingsError


def integer(low: int, high: int | None = None, *, optional: bool = False) -> Parse:
    """Return a check for integers from `low` to `high`, and for None if `optional`."""
    bounds = f"from {low}" + ("" if high is None else f" to {high}")

    def parse(name: str, value: Any) -> Any:
        if value is None and optional:
            return value
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if not is_integer or value < low or (high is not None and value > high):
            raise SettingsError(
                f"{name} is {value!r}",
                f"an integer {bounds}" + (", or None" if optional else ""),
                f"choose a {name} in that range",
            )
        return value

    return parse


def flag(name: str, value: Any) -> bool:
    """Check True or False."""
    if not isinstance(value, bool):
        raise SettingsError(f"{name} is {value!r}", "True or False", "give one of them")
    return value


def positive(what: str, remedy: str) -> Parse:
    """Return a check for numbers above 0."""

    def parse(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
            raise SettingsError(f"{name} is {value!r}", f"{what} above 0", remedy)
        return value

    return parse


def _is_share(value: float) -> bool:
    return 0 <= value < float("inf")


def at_least_zero(what: str, remedy: str) -> Parse:
    """Return a check for finite numbers from 0."""

    def parse(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, Real) or not _is_share(float(value)):
            raise SettingsError(f"{name} is {value!r}", f"{what}, from 0", remedy)
        return value

    return parse


def one_of(allowed: tuple[str, ...], *, optional: bool = False) -> Parse:
    """Return a check for the allowed names, and for None if `optional`."""

    def parse(name: str, value: Any) -> Any:
        if not (value is None and optional):
            arguments.one_of(name, value, allowed)
        return value

    return parse


def _items(value: Any) -> list[Any]:
    """Return a list of the values, or of the single one."""
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    return list(value) if several else [value]


def operator_name(op: Any) -> str:
    """Return `aten.relu.default` for an overload, `aten.relu` for a packet; accepts names of both.

    A higher-order operator, which torch prints as `cond`, is `higher_order.cond`.
    """
    name = op if isinstance(op, str) else str(op)
    if not isinstance(op, str) and name.isidentifier():
        name = f"higher_order.{name}"
    name = name.removeprefix("torch.ops.").replace("::", ".")
    if not re.fullmatch(r"\w+\.\w+(\.\w+)?", name):
        raise SettingsError(
            f"an operator is named {op!r}",
            "an operator such as torch.ops.aten.relu.default or 'aten.relu'",
            "write the operator as torch prints it in an exported graph",
        )
    return name


def operators(name: str, value: Any) -> frozenset[str]:  # noqa: ARG001  (a `Parse`)
    """Return the names of one operator or of several."""
    if not isinstance(value, (set, frozenset, list, tuple)):
        value = [value]
    return frozenset(operator_name(op) for op in value)


def modules(name: str, value: Any) -> frozenset[str]:
    """Check one module pattern or several."""
    items = _items(value)
    for item in items:
        if not isinstance(item, str) or not item:
            raise SettingsError(
                f"{name} names a module {item!r}",
                "the path of a module such as 'layers.0.mlp', or the full name of its class",
                "write paths as model.named_modules() gives them",
            )
    return frozenset(items)


def translations(name: str, value: Any) -> tuple[tuple[str, Callable[..., Any]], ...]:
    """Return pairs of an operator's name and a function."""
    if isinstance(value, tuple):  # parsed before
        value = dict(value)
    if not isinstance(value, Mapping):
        raise SettingsError(
            f"{name} is a {type(value).__name__}",
            "a mapping of operators to functions",
            "see docs/extending.md for an example",
        )
    return tuple((operator_name(op), _callable(name, function)) for op, function in value.items())


def functions(name: str, value: Any) -> tuple[Callable[..., Any], ...]:
    """Check one function or several."""
    items = [value] if callable(value) else _items(value)
    return tuple(_callable(name, item) for item in items)


def _callable(name: str, value: Any) -> Callable[..., Any]:
    if not callable(value):
        raise SettingsError(
            f"{name} has {value!r}", "a function", "see docs/extending.md for an example"
        )
    function: Callable[..., Any] = value
    return function


def plugin_files(name: str, value: Any) -> tuple[str, ...]:
    """Return the absolute paths of one existing file or several."""
    paths: list[str] = []
    for item in _items(value):
        path = Path(item).absolute() if isinstance(item, (str, os.PathLike)) else None
        if path is None or not path.is_file():
            raise SettingsError(
                f"{name} names {str(path or item)!r}, which is not a file",
                "shared libraries with TensorRT plugins",
                "correct the path",
            )
        paths.append(str(path))
    return tuple(paths)


def folder(name: str, value: Any) -> str | None:
    """Return a path as text, or None unchanged."""
    try:
        return None if value is None else os.fsdecode(value)
    except TypeError as err:
        raise SettingsError(
            f"{name} is {value!r}", "a path, or 'off'", "give a path as text"
        ) from err


def report_target(name: str, value: Any) -> Any:
    """Check the target of the report: None, True, a path (returned as text), or a function."""
    if value is None or value is False:
        return None
    if value is True or callable(value):
        return value
    try:
        return os.fsdecode(value)
    except TypeError as err:
        raise SettingsError(
            f"{name} is {value!r}", "True, a path, or a function", "give one of these"
        ) from err


def compute_capability(text: Any) -> str:
    """Return "8.9" for "8.9", "sm_89", "sm89", 89 or (8, 9).

    Raises:
        SettingsError: The value is none of these.
    """
    if isinstance(text, (tuple, list)) and len(text) == 2:
        return f"{int(text[0])}.{int(text[1])}"
    found = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", str(text))
    if not found:
        raise SettingsError(
            f"{text!r} is not a compute capability",
            "a value such as '8.9' or 'sm_89'",
            "see NVIDIA's list of compute capabilities for your GPU",
        )
    return f"{found[1]}.{found[2]}"


def compute_capabilities(name: str, value: Any) -> tuple[str, ...]:  # noqa: ARG001  (a `Parse`)
    """Return one compute capability or several as text."""
    return tuple(compute_capability(item) for item in _items(value))
