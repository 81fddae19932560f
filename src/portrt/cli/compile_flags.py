"""Flags of options of `compile`: the help is that of the fields that declare the options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from portrt.compiler.options.settings import all_options


def flag(option: str, *names: str, note: str = "", **attributes: Any) -> Callable[[Any], Any]:
    """Make a `click.option` for an option of `compile`.

    Args:
        option: Name of the option.
        names: As click takes them; by default the option's name alone.
        note: Added to the help, for what only the flag has.
        attributes: As click takes them; a `help` replaces that of the option.
    """
    found = all_options()[option]
    text = f"{attributes.pop('help', found.help)} {note}".strip()
    names = names or (f"--{option.replace('_', '-')}",)
    return click.option(*names, help=text, show_default=found.unset or None, **attributes)
