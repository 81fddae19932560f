"""Declaration of options as dataclass fields: default, check, help text, and cache behavior."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

# (name of the option, value) -> the normalized value. Raises SettingsError for an invalid value;
# idempotent.
Parse = Callable[[str, Any], Any]

_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: Name of the option.
        default: Value that is used if none is given.
        help: Description in one line.
        unset: Meaning of the default, if the value alone does not show it.
        rebuilds: Whether a change of the value requires a new engine.
        per_engine: Whether it can be set for a single engine.
        parse: Normalizes and checks a value.
    """

    name: str
    default: Any
    help: str
    unset: str
    rebuilds: bool
    per_engine: bool
    parse: Parse

    @property
    def line(self) -> str:
        """Return name, help and default, for docstrings."""
        unset = f" ({self.unset})" if self.unset else ""
        return f"{self.name}: {self.help} Default: {default_text(self.default)}{unset}."


def as_given(name: str, value: Any) -> Any:  # noqa: ARG001  (a `Parse`)
    """Return any value unchanged."""
    return value


def setting(
    default: Any,
    *,
    help: str,  # noqa: A002  (as click and argparse name it)
    rebuilds: bool,
    unset: str = "",
    parse: Parse = as_given,
    per_engine: bool = False,
) -> Any:
    """Declare an option as a field of a frozen dataclass.

    Args:
        default: Value that is used if none is given.
        help: Description in one line, for docstrings, the command line and docs/options.md.
        rebuilds: Whether a change of the value requires a new engine; if so, the value is part of
            the cache key.
        unset: Meaning of the default, if the value alone does not show it.
        parse: Normalizes and checks a value.
        per_engine: Whether a mapping in `engines` may set it. Options of a backend may always be
            set there.
    """
    metadata = {"help": help, "unset": unset, "rebuilds": rebuilds}
    metadata |= {"parse": parse, "per_engine": per_engine}
    return dataclasses.field(default=default, metadata=metadata)


def options_of(cls: type) -> Mapping[str, Option]:
    """Return the options that fields of a dataclass declare, by name."""
    return {
        item.name: Option(item.name, item.default, **item.metadata)
        for item in dataclasses.fields(cls)
        if "parse" in item.metadata
    }


def default_text(value: Any) -> str:
    """Format a default for text: "empty" for every empty collection."""
    return "empty" if value in ((), frozenset()) else repr(value)


def documented(cls: _Class) -> _Class:
    """List the options of a dataclass in its docstring; a class decorator."""
    if cls.__doc__ is not None:  # python -OO has none
        head, _, rest = cls.__doc__.rstrip().partition("    Attributes:\n")
        section = docstring_section("Attributes", options_of(cls).values())
        cls.__doc__ = f"{head.rstrip()}\n\n{section}{rest}\n    "
    return cls


def docstring_section(title: str, options: Iterable[Option]) -> str:
    """Format a section of a docstring, one line for each option."""
    return "".join([f"    {title}:\n", *(f"        {option.line}\n" for option in options)])


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Base class for the options of one backend, or of several that share them.

    Every field is declared with `setting`. The backend's row in `portrt.targets.backends` names the
    class.
    """

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            object.__setattr__(self, name, option.parse(name, getattr(self, name)))

    def key_parts(self) -> dict[str, Any]:
        """Return parts of the cache key in addition to the marked fields, such as file digests."""
        return {}
