"""Options of the backend `inductor`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from portrt.compiler.options.fields import BackendOptions, documented, setting
from portrt.targets.cpu_features import cpu_features


@documented
@dataclass(frozen=True, kw_only=True)
class InductorOptions(BackendOptions):
    """What AOTInductor can be given."""

    max_autotune: bool = setting(
        False,
        help="Measure several kernels for products and convolutions, and keep the fastest.",
        rebuilds=True,
    )
    freezing: bool = setting(
        False,
        help="Prepack the weights into the engine, which then holds its own copy of them.",
        rebuilds=True,
    )

    def key_parts(self) -> dict[str, Any]:
        """Return the instruction sets of this CPU, which the engine is compiled for."""
        return {"cpu": sorted(cpu_features() or ())}
