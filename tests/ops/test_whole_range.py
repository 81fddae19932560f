"""Whole numbers of the whole range: an engine that computes with floats does not hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ops.case import Case, T
from ops.judge import judge
from ops.tables import ALL_CASES

_MOST = {torch.int64: 2**61, torch.int32: 2**29}
_PER_PROGRAM = 60
# Whose whole numbers are places.
_PLACES = ("aten.index.Tensor",)


def _widened(arg: Any) -> Any:
    if isinstance(arg, (list, tuple)):
        return type(arg)(_widened(item) for item in arg)
    if not isinstance(arg, T) or arg.dtype not in _MOST or arg.special or arg.distinct:
        return arg
    most = _MOST[arg.dtype]
    return replace(arg, low=-most, high=most) if arg.low < 0 else arg


def _rows() -> list[Case]:
    """The rows whose whole numbers may be any, with such numbers."""
    found = []
    for case in ALL_CASES:
        args = _widened(case.args)
        if args != case.args and not case.stays and case.op not in _PLACES:
            found.append(replace(case, args=args))
    return found


ROWS = _rows()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("start", range(0, len(ROWS), _PER_PROGRAM))
def test_numbers_are_eagers(start: int) -> None:
    outcomes = judge(ROWS[start : start + _PER_PROGRAM])
    assert {str(case): found.wrong for case, found in outcomes.items() if found.wrong} == {}
