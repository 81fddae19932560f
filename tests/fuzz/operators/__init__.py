"""What a graph is made of: functions that draw the arguments of one operator and add the step."""

from __future__ import annotations

from collections.abc import Callable

from fuzz.builder import Builder
from fuzz.operators import (
    creation,
    indexing,
    layers,
    linear,
    movement,
    pointwise,
    reduction,
)

OPERATORS: dict[str, Callable[[Builder], None]] = {
    **pointwise.OPERATORS,
    **reduction.OPERATORS,
    **movement.OPERATORS,
    **indexing.OPERATORS,
    **linear.OPERATORS,
    **layers.OPERATORS,
    **creation.OPERATORS,
}

__all__ = ["OPERATORS"]
