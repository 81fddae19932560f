"""Values of options as `Settings` holds them: checked, frozen, of one form."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from portrt.errors import SettingsError


def operator_name(op: Any) -> str:
    """`aten.relu.default` for an overload, `aten.relu` for a packet, and for names of these.

    An operator that is called with graphs, which torch prints as `cond`, is `higher_order.cond`.
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


def names(value: Any) -> frozenset[str]:
    items = [value] if isinstance(value, str) else list(value)
    for item in items:
        if not isinstance(item, str) or not item:
            raise SettingsError(
                f"a module is named {item!r}",
                "the path of a module such as 'layers.0.mlp', or the full name of its class",
                "write paths as model.named_modules() gives them",
            )
    return frozenset(items)


def translations(value: Any) -> tuple[tuple[str, Callable[..., Any]], ...]:
    if not isinstance(value, Mapping):
        raise SettingsError(
            f"translations is a {type(value).__name__}",
            "a mapping of operators to functions",
            "see docs/extending.md for an example",
        )
    return tuple((operator_name(op), _called(made, "translations")) for op, made in value.items())


def passes(value: Any) -> tuple[Callable[..., Any], ...]:
    items = [value] if callable(value) else list(value)
    return tuple(_called(item, "passes") for item in items)


def _called(value: Any, option: str) -> Callable[..., Any]:
    if not callable(value):
        raise SettingsError(
            f"{option} has {value!r}", "a function", "see docs/extending.md for an example"
        )
    made: Callable[..., Any] = value
    return made


def plugins(value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, (str, os.PathLike)) else list(value)
    paths = [Path(item).absolute() for item in items]
    for path in paths:
        if not path.is_file():
            raise SettingsError(
                f"plugins names {str(path)!r}, which is no file",
                "shared libraries with TensorRT plugins",
                "correct the path",
            )
    return tuple(map(str, paths))


def folder(value: Any) -> str | None:
    try:
        return None if value is None else os.fsdecode(value)
    except TypeError as err:
        raise SettingsError(
            f"cache_dir is {value!r}", "a path, or 'off'", "give a path as text"
        ) from err


def report_target(value: Any) -> Any:
    """None, True, a path as text, or a function."""
    if value is None or value is False:
        return None
    if value is True or callable(value):
        return value
    try:
        return os.fsdecode(value)
    except TypeError as err:
        raise SettingsError(
            f"report is {value!r}", "True, a path, or a function", "give one of these"
        ) from err
