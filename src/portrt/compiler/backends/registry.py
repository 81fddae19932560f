"""Lookup of builders by the names of the backends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import torch

from portrt.compiler.backends.base import Builder, BuilderInput
from portrt.compiler.options.settings import Settings
from portrt.engines.registry import row_of, unavailable
from portrt.errors import BuildError
from portrt.targets import backends
from portrt.verdict import Verdict


@lru_cache
def builder(name: str) -> Builder:
    """Return the builder of a backend.

    Raises:
        BackendUnavailableError: There is no such backend; the message lists the known names.
    """
    row = row_of(name)
    if not row.builder:
        reason = "it runs engines and builds none"
        return _NoBuilder(name, Verdict.no("no_builder", reason, "leave it out of engines"))
    try:
        found: Builder = backends.resolve(row.builder)()
    except Exception as err:
        return _NoBuilder(name, unavailable(row, row.builder, err))
    return found


@dataclass(frozen=True)
class _NoBuilder:
    """Placeholder for a builder that does not exist or cannot be imported."""

    name: str
    verdict: Verdict
    input: BuilderInput = "program"

    def can_build(self, settings: Settings | None = None) -> Verdict:  # noqa: ARG002
        return self.verdict

    def supports(self, node: torch.fx.Node) -> Verdict:  # noqa: ARG002
        return self.verdict

    def build(self, *_: object) -> NoReturn:
        raise BuildError(
            f"no {self.name} engine can be built: {self.verdict.reason}",
            "a builder that can be imported",
            self.verdict.remedy,
        )
