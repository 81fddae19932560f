"""Faults: the operator whose results differ, with its line in the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from portrt.errors import CheckError
from portrt.graphs.source_line import source_line
from portrt.verdict import Verdict


@dataclass(frozen=True)
class Fault:
    """A difference from PyTorch, narrowed down.

    Attributes:
        happened: The fact: the operator, its line, its sizes and the worst difference.
        expected: The tolerance.
        nodes: Names of nodes of the lowered program that are to stay in PyTorch.
        whole: Names of nodes of the captured program that are to stay as they are, in PyTorch.
        backend: The backend whose engines differ; "" where all would.
    """

    happened: str
    expected: str
    nodes: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    backend: str = ""

    def error(self) -> CheckError:
        """Return the error for it."""
        return CheckError(self.happened, self.expected, REMEDY, self.backend)

    def verdict(self) -> Verdict:
        """Return the reason why its nodes stay in PyTorch."""
        return Verdict.no("wrong_results", self.happened, "report the operator")


REMEDY = (
    "compile with check='fallback', which leaves the operator to PyTorch, put it into "
    "torch_executed_ops and report it, or compile with check='accept'"
)


def described(node: torch.fx.Node, inputs: Sequence[Any]) -> str:
    """Describe a call: operator, line in the model, and sizes of its tensors."""
    line = source_line(node.meta.get("stack_trace"))
    shapes = ", ".join(
        str(tuple(value.shape)) for value in inputs if isinstance(value, torch.Tensor)
    )
    where = f" at {line}" if line else ""
    return f"{node.target} ({node.name}){where}" + (f", on tensors of {shapes}," if shapes else "")


def difference(row: Mapping[str, Any]) -> str:
    """Describe the difference in a row of `compare`."""
    return f"largest difference {row['max_abs']}, relative {row['max_rel']}"


def tolerance(row: Mapping[str, Any]) -> str:
    """Describe the tolerance in a row of `compare`."""
    return f"a relative difference up to {row['tolerance']}"
