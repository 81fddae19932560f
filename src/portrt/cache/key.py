"""Keys of cache entries: named parts, each hashed, so that a miss can be explained."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """The key of an entry.

    Attributes:
        kind: "engine" or "program".
        parts: Name of each part -> SHA-256 of its value.
    """

    kind: str
    parts: Mapping[str, str]

    @classmethod
    def of(cls, kind: str, values: Mapping[str, Any]) -> Key:
        """Make a key of parts that are plain JSON values."""
        return cls(kind, {name: digest_of(value) for name, value in sorted(values.items())})

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all parts, in hexadecimal."""
        return digest_of([self.kind, dict(self.parts)])

    @property
    def name(self) -> str:
        """Name of the entry in the cache."""
        return f"{self.kind}-{self.digest}"

    def log(self) -> None:
        """Log every part at DEBUG."""
        for name, digest in self.parts.items():
            logger.debug("%s %s: %s is %s", self.kind, self.digest[:12], name, digest[:16])


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a plain JSON value; equal values have equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differing_parts(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names of parts that differ, or that only one of two keys has."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
