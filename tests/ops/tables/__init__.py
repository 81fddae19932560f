"""The rows, one file a family; `ALL_CASES` has them all."""

from __future__ import annotations

from ops.case import Case
from ops.tables import (
    arithmetic,
    attention,
    backward,
    comparison,
    complex_numbers,
    creation,
    functional,
    indexing,
    linear,
    mathematics,
    normalization,
    pointwise,
    pooling,
    reduction,
    shaping,
)

FAMILIES: dict[str, list[Case]] = {
    module.__name__.rpartition(".")[2]: module.CASES
    for module in (
        pointwise,
        arithmetic,
        comparison,
        reduction,
        shaping,
        indexing,
        creation,
        linear,
        normalization,
        pooling,
        backward,
        attention,
        functional,
        mathematics,
        complex_numbers,
    )
}
ALL_CASES = [case for cases in FAMILIES.values() for case in cases]
