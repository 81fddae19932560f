"""Description of an engine without its bytes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """An engine without its bytes. The mappings are described in docs/format.md.

    Attributes:
        backend: Name of the backend that built it and that runs it.
        build: Build parameters: library, version, flags, opset, precision, profiles, seconds.
        requires: Requirements to run it: device type, and, if relevant, operating system, CPU
            architecture and compute capabilities.
        weights: Names of the tensors of the weights image that it takes when it is opened.
        check: Comparison of its outputs with PyTorch's, or the reason why there is none.
    """

    backend: str
    build: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    check: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest, without "data"."""
        return {
            "backend": self.backend,
            "build": dict(self.build),
            "requires": dict(self.requires),
            "weights": list(self.weights),
            "check": self.check,
        }
