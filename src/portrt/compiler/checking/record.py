"""Record: what was compared, for the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """Counts and sizes of the inputs that were compared.

    Attributes:
        compared: Number of inputs, the example's included.
        skipped: Number of drawn inputs on which the model itself fails.
        failed: Number of drawn inputs on which an engine fails.
        sizes: Name of a dynamic dimension -> the sizes that were compared.
        worst: Largest difference, relative to the largest number of the output.
    """

    compared: int = 0
    skipped: int = 0
    failed: int = 0
    sizes: dict[str, set[int]] = field(default_factory=dict)
    worst: float = 0.0

    def add(self, sizes: Mapping[str, int], rows: Sequence[Mapping[str, Any]]) -> None:
        """Record one comparison."""
        self.compared += 1
        for name, size in sizes.items():
            self.sizes.setdefault(name, set()).add(size)
        found = [row["max_rel"] for row in rows if not row.get("uncertain")]
        self.worst = max([self.worst, *(it for it in found if isinstance(it, float))])

    def to_json(self) -> dict[str, Any]:
        """Return the field `program` of `check`."""
        return {
            "compared": self.compared,
            "skipped": self.skipped,
            "failed": self.failed,
            "sizes": {name: sorted(sizes) for name, sizes in self.sizes.items()},
            "max_rel": self.worst,
        }
