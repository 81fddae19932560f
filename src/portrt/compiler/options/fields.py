"""Fields that declare options: a default, a check, a line of help, and what the option affects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

# (name of the option, value) -> the value in the one form that is stored. Raises SettingsError for
# a value that cannot be used, and returns a value that it returned before unchanged.
Parse = Callable[[str, Any], Any]

_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: Its name.
        default: The value where none is given.
        help: What it does, in one line.
        unset: What the default comes to, if it does not show that itself.
        rebuilds: Whether another value gives another engine.
        per_engine: Whether one engine can have it for itself.
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
        """Name, help and default, for docstrings."""
        unset = f" ({self.unset})" if self.unset else ""
        return f"{self.name}: {self.help} Default: {default_text(self.default)}{unset}."


def as_given(name: str, value: Any) -> Any:  # noqa: ARG001  (a `Parse`)
    """Keep any value as it is."""
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
        default: The value where none is given.
        help: One line, for docstrings, the command line and docs/options.md.
        rebuilds: Whether another value gives another engine; the value is then in its cache key.
        unset: What the default comes to, if it does not show that itself.
        parse: Normalizes and checks a value.
        per_engine: Whether a mapping in `engines` may have it. All options of a backend may be
            there without this mark.
    """
    metadata = {"help": help, "unset": unset, "rebuilds": rebuilds}
    metadata |= {"parse": parse, "per_engine": per_engine}
    return dataclasses.field(default=default, metadata=metadata)


def options_of(cls: type) -> Mapping[str, Option]:
    """The options that fields of a dataclass declare, by name."""
    return {
        item.name: Option(item.name, item.default, **item.metadata)
        for item in dataclasses.fields(cls)
        if "parse" in item.metadata
    }


def default_text(value: Any) -> str:
    """A default as it reads in a text: without the type of an empty collection."""
    return "empty" if value in ((), frozenset()) else repr(value)


def documented(cls: _Class) -> _Class:
    """Class decorator: list the options of a dataclass in its docstring."""
    if cls.__doc__ is not None:  # python -OO has none
        head, _, rest = cls.__doc__.rstrip().partition("    Attributes:\n")
        section = docstring_section("Attributes", options_of(cls).values())
        cls.__doc__ = f"{head.rstrip()}\n\n{section}{rest}\n    "
    return cls


def docstring_section(title: str, options: Iterable[Option]) -> str:
    """A section of a docstring, one line for each option."""
    return "".join([f"    {title}:\n", *(f"        {option.line}\n" for option in options)])


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Options of one backend, or of several that share them: the base of such a dataclass.

    Every field is made by `setting`. The row of a backend in `portrt.targets.backends` has the
    name of its class.
    """

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            object.__setattr__(self, name, option.parse(name, getattr(self, name)))

    def key_parts(self) -> dict[str, Any]:
        """Parts of an engine's cache key beyond the marked fields, such as digests of files."""
        return {}
