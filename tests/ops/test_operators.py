"""Each row of the table: in the engine it was promised to, with eager's numbers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ops.case import Case
from ops.core import OUTSIDE, core_operators
from ops.judge import Outcome, judge
from ops.tables import ALL_CASES, FAMILIES

_PER_PROGRAM = 120


@pytest.fixture(scope="module")
def outcomes(quiet: None) -> dict[Case, Outcome]:
    """Filled as the tests go: rows are compiled many at a time."""
    return {}


def _programs() -> list[list[Case]]:
    """The rows that are compiled together."""
    found = []
    for family in FAMILIES.values():
        rows = [case for case in family if not case.stays]
        found += [rows[start : start + _PER_PROGRAM] for start in range(0, len(rows), _PER_PROGRAM)]
    return found + [[case] for case in ALL_CASES if case.stays]


_PROGRAMS = _programs()
_PROGRAM_OF = {case: index for index, cases in enumerate(_PROGRAMS) for case in cases}


@pytest.mark.parametrize("case", ALL_CASES, ids=str)
def test_row(case: Case, outcomes: dict[Case, Outcome]) -> None:
    if case not in outcomes:
        outcomes.update(judge(_PROGRAMS[_PROGRAM_OF[case]]))
    outcome = outcomes[case]

    assert not outcome.wrong
    assert outcome.engine == (not case.stays), outcome.reason
    assert case.stays in outcome.reason


def test_names_of_rows_are_unique() -> None:
    counts = Counter(map(str, ALL_CASES))

    assert [name for name, count in counts.items() if count > 1] == []


def test_every_core_operator_has_a_row() -> None:
    named = {case.op for case in ALL_CASES} | set(OUTSIDE) | {"aten.sym_is_contiguous.default"}

    assert [name for name in core_operators() if name not in named] == []


class _Listener(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.called.add(str(func))
        return func(*args, **(kwargs or {}))


# Rows without a function of their own call the operator by its name. Sizes of a tensor that is not
# traced are plain numbers, and no operator is called for them.
_NAMED = {c.op for c in ALL_CASES if c.function and c.op.startswith("aten.")}


@pytest.mark.parametrize("op", sorted(op for op in _NAMED if not op.startswith("aten.sym_")))
def test_rows_call_the_operator_that_they_name(op: str) -> None:
    for case in (case for case in ALL_CASES if case.op == op and case.function):
        with _Listener() as listener, torch.no_grad():
            case.run(case.make(0))
        assert op in listener.called, case
