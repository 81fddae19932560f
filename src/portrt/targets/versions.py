"""Library versions as lists of integers, compared up to the shorter one."""

from __future__ import annotations

import re


def numbers(version: str) -> list[int]:
    """Return the leading integers: [1, 7, 1, 116] for "1.7.1.116", [1, 32] for "1.32.dev5"."""
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
    """Return whether the first `parts` numbers are equal, up to the shorter version."""
    one, other = numbers(built)[:parts], numbers(found)[:parts]
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def at_least(oldest: str, found: str) -> bool:
    """Return whether `found` is `oldest` or newer, up to the length of `found`.

    So 1.23 is not older than 1.23.2.
    """
    given = numbers(found)
    return given >= numbers(oldest)[: len(given)]
