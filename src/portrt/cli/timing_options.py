"""Options that `portrt bench` and `portrt profile` share: the file, its inputs, the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from portrt.errors import SettingsError

Function = TypeVar("Function", bound=Callable[..., Any])


def timing_options(command: Function) -> Function:
    """Give a command `file`, `inputs`, `engine`, `shapes`, `seed`, `device` and `trust`."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def shapes_by_name(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, list[int]]:
    """Parse texts such as "NAME=8x3x96x96" to name -> sizes; a callback of click.

    Raises:
        SettingsError: A text has another form.
    """
    return dict(map(_shape, texts))


def _shape(text: str) -> tuple[str, list[int]]:
    name, _, sizes = text.partition("=")
    try:
        return name, [int(size) for size in sizes.split("x")] if sizes else []
    except ValueError as err:
        raise SettingsError(
            f"--shape {text!r} is not understood", "NAME=8x3x96x96", "correct the shape"
        ) from err


# In the order in which `--help` lists them.
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("file", type=click.Path()),
    click.argument("inputs", nargs=-1, type=click.Path(exists=True)),
    click.option("--engine", help="Backend for every block, or eager; default: as in any call."),
    click.option(
        "--shape",
        "shapes",
        multiple=True,
        callback=shapes_by_name,
        metavar="NAME=8x3x96x96",
        help="Shape of a generated input; repeatable.",
    ),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Seed of generated inputs."
    ),
    click.option("--device", default="cpu", show_default=True, help="Device of the inputs."),
    click.option("--trust", multiple=True, help="As in `portrt run`; repeatable."),
)
