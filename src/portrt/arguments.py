"""Checks of arguments that several parts of the API share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from portrt.errors import SettingsError

OUTPUT_FORMATS = ("module", "exported_program")

FALLBACKS = ("eager", "error", "inductor")
# What engines are measured for.
GOALS = ("latency", "throughput", "size")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise SettingsError unless an option has one of its allowed values."""
    if value not in allowed:
        raise SettingsError(
            f"{name} is {value!r}",
            f"one of {', '.join(map(repr, allowed))}",
            f"choose a {name} from the list",
        )


def check_names(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raise SettingsError unless every name is known."""
    for name in given:
        if name not in known:
            raise SettingsError(
                f"a policy names the {what} {name!r}",
                f"one of {', '.join(map(repr, known))}",
                "correct the name",
            )


def as_names(given: Sequence[str] | str | None, what: str) -> tuple[str, ...] | None:
    """Convert one name or several to a tuple; None stays None.

    Args:
        given: A name, names, or None.
        what: Name of the argument, for messages.

    Raises:
        SettingsError: `given` is something else.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return (given,)
    try:
        return tuple(given)
    except TypeError as err:
        raise SettingsError(f"{what} is {given!r}", "names", "pass a list of names") from err
