"""Strict JSON with typed fields: whatever a hostile file contains raises a PackageError."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from portrt.errors import PackageError, brief
from portrt.format import size_expr

MAX_ITEMS = 65536
MAX_TEXT_CHARS = 1024
MAX_DEPTH = 32

_SIZE = f"an integer from 0 to {size_expr.MAX_SIZE}"

REMEDY = "get the file again from where it was made, or compile the model again"


def strict_json(text: str) -> Any:
    """Parse JSON; duplicate keys and numbers that are not finite are errors.

    Raises:
        ValueError: The text is not such JSON.
        RecursionError: It is nested too deep.
    """
    return json.loads(
        text,
        object_pairs_hook=_unique_keys,
        parse_constant=_no_constant,
        parse_float=_finite,
    )


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is not a finite number")
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a duplicate key")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_deeper_than(tree: Any, levels: int) -> bool:
    """Return whether lists and objects are nested deeper than `levels`."""
    layer = [tree]
    for _ in range(levels + 1):
        layer = [
            item
            for node in layer
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, (dict, list))
        ]
    return bool(layer)


def pointer(parent: str, *keys: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of a value below the one that `parent` points at."""
    escaped = (str(key).replace("~", "~0").replace("/", "~1") for key in keys)
    return "/".join([parent, *escaped])


class Fields:
    """Reads typed fields of one JSON object; every error names the object and the field.

    Args:
        raw: The JSON object.
        where: Description of the object, for messages.
        path: JSON pointer of the object.
    """

    def __init__(self, raw: Any, where: str, path: str = "") -> None:
        if not isinstance(raw, dict):
            raise PackageError(f"{where} is {brief(raw)}", "a JSON object", REMEDY, path)
        self.raw = raw
        self.where = where
        self.path = path

    def at(self, *keys: str | int) -> str:
        """Return the JSON pointer of a field, or of a value below it."""
        return pointer(self.path, *keys)

    def bad(self, key: str, fact: str, expected: str) -> PackageError:
        """Return the error for an invalid field; `fact` follows its name in the message."""
        return PackageError(f"{key!r} of {self.where} {fact}", expected, REMEDY, self.at(key))

    def take(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        value = self.raw.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.bad(key, f"is {brief(value)}", expected)
        return value

    def part(self, key: str) -> Fields:
        """Return the fields of a nested object."""
        return Fields(
            self.take(key, dict, "a JSON object"), f"{key!r} of {self.where}", self.at(key)
        )

    def text(self, key: str) -> str:
        """Return a string that can be part of a message: printable, one line, bounded length."""
        value = str(self.take(key, str, "a string"))
        if len(value) > MAX_TEXT_CHARS or not value.isprintable():
            raise self.bad(
                key, f"is {brief(value)}", f"printable text of up to {MAX_TEXT_CHARS} characters"
            )
        return value

    def is_null(self, key: str) -> bool:
        """Return whether a required field is null."""
        if key not in self.raw:
            raise PackageError(
                f"{self.where} has no {key!r}", "a value, or null", REMEDY, self.at(key)
            )
        return self.raw[key] is None

    def integer(self, key: str) -> int:
        value = self.take(key, int, _SIZE)
        if not 0 <= value <= size_expr.MAX_SIZE:
            raise self.bad(key, f"is {brief(value)}", _SIZE)
        return int(value)

    def items(self, key: str) -> list[Any]:
        found = self.take(key, list, "a list")
        if len(found) > MAX_ITEMS:
            raise self.bad(key, f"has {len(found)} items", f"up to {MAX_ITEMS}")
        return list(found)

    def mapping(self, key: str) -> Mapping[str, Any]:
        found = dict(self.take(key, dict, "a JSON object"))
        if _is_deeper_than(found, MAX_DEPTH):
            raise self.bad(key, "is nested too deep", f"up to {MAX_DEPTH} levels")
        return found

    def texts(self, key: str) -> Mapping[str, str]:
        part = self.part(key)
        return {name: part.text(name) for name in part.raw}

    def names(self, key: str) -> tuple[str, ...]:
        found = self.items(key)
        if not all(isinstance(name, str) for name in found) or len(set(found)) != len(found):
            raise self.bad(key, f"is {brief(found)}", "distinct strings")
        return tuple(found)
