"""Budget: what the drawn inputs of a check may cost."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Budget:
    """A share of the time that a compilation took before its check.

    Args:
        share: The share.
        started: Time at which the compilation started.
        clock: Returns the time in seconds.
    """

    def __init__(self, share: float, started: float, clock: Clock = time.perf_counter) -> None:
        self._share = share
        self._clock = clock
        self._before = started
        self._began: float | None = None
        self._seconds = 0.0

    def begin(self) -> None:
        """Start to count, at the first call; the compilation up to here is what is shared."""
        if self._began is None:
            self._began = self._clock()
            self._seconds = self._share * (self._began - self._before)

    def now(self) -> float:
        """Return the time in seconds."""
        return self._clock()

    def allows(self, seconds: float) -> bool:
        """Return whether something that takes this long is within the budget."""
        assert self._began is not None
        spent = self._clock() - self._began
        return self._seconds > 0 and spent + seconds <= self._seconds
