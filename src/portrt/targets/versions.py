"""Versions of libraries as numbers, compared as far as both sides say."""

from __future__ import annotations

import re


def numbers(version: str) -> list[int]:
    """The leading numbers: [1, 7, 1, 116] of "1.7.1.116", [1, 32] of "1.32.dev5"."""
    found: list[int] = []
    for part in version.split("."):
        match = re.match(r"\d{1,9}", part, re.ASCII)
        if match is None:
            break
        found.append(int(match[0]))
        if match[0] != part:
            break
    return found


def same_release(built: str, found: str, parts: int = 3) -> bool:
    """Whether the first `parts` numbers are equal, as far as both say them."""
    one, other = numbers(built)[:parts], numbers(found)[:parts]
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def at_least(oldest: str, found: str) -> bool:
    """Compared as far as `found` says: 1.23 is not older than 1.23.2."""
    given = numbers(found)
    return given >= numbers(oldest)[: len(given)]
