"""Draws graphs with hypothesis, checks each, and reduces what differs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, Unsatisfiable

from fuzz.builder import Builder, NotHereError
from fuzz.check import Checker, Find, ancestors, narrowed
from fuzz.graph import Graph
from fuzz.operators import OPERATORS
from fuzz.scripts import script

LONGEST = 40  # steps of a graph
_REDUCE_S = 120.0


class MismatchError(Exception):
    """Raised for hypothesis, which then looks for a smaller graph."""


@st.composite
def _steps(
    draw: Callable[[Any], Any], builder: Builder, names: Sequence[str], longest: int
) -> bool:
    """Add one step, of a strategy of its own so that hypothesis can leave it out; False to end."""
    if draw(st.integers(0, longest)) == 0:
        return False
    with contextlib.suppress(NotHereError):
        OPERATORS[draw(st.sampled_from(names))](builder)
    return True


@st.composite
def graphs(draw: Callable[[Any], Any], names: Sequence[str], longest: int = LONGEST) -> Graph:
    """A graph of 1 to `longest` steps of the named operators."""
    builder = Builder(draw)
    for _ in range(longest):
        if not draw(_steps(builder, names, longest)):
            break
    hypothesis.assume(builder.steps)
    return builder.graph()


@dataclass
class Search:
    """A run over many graphs.

    Attributes:
        checker: Compares a graph with eager.
        names: Operators to draw from.
        longest: Most steps of a graph.
        on_find: Called with the text of each find.
        folder: Where the script of each find is written, if anywhere.
        finds: Mismatches, one for each kind.
        seeds: The seed of the graph in which each was found.
        repeated: Mismatches of kinds that were found before.
    """

    checker: Checker
    names: Sequence[str] = tuple(OPERATORS)
    longest: int = LONGEST
    folder: Path | None = None
    on_find: Callable[[str], object] = str
    finds: dict[str, Find] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    repeated: int = 0

    def run(self, graphs: int, seed: int, seconds: float = float("inf")) -> None:
        """Check graphs, each of its own seed, until there were so many or the time is over."""
        end = time.monotonic() + seconds
        for index in range(graphs):
            if time.monotonic() > end:
                return
            own = seed * 1_000_000 + index
            try:
                self.check_one(own)
            except Exception as err:  # a fault of the search: the run goes on without the graph
                self.checker.counts.skipped[f"not drawn, seed {own}: {err!r}"[:120]] += 1

    def check_one(self, seed: int) -> None:
        """Check one graph, and reduce it where it differs.

        A run of hypothesis for one graph: in longer runs it draws many graphs that resemble the
        one before.
        """
        smallest: list[Find] = []
        reduce_until = float("inf")

        @hypothesis.seed(seed)
        @settings(
            database=None,
            deadline=None,
            max_examples=1,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
        )
        @hypothesis.given(graphs(self.names, self.longest))
        def search(graph: Graph) -> None:
            nonlocal reduce_until
            if time.monotonic() > reduce_until:
                return
            find = self.checker.check(graph)
            if find is None:
                return
            if not smallest:
                alone = narrowed(self.checker, find)
                if alone is not None:
                    self._found(alone, seed)
                    return
                find = self.checker.check(ancestors(find)) or find
                reduce_until = time.monotonic() + _REDUCE_S
            if not smallest or len(find.graph.steps) <= len(smallest[-1].graph.steps):
                smallest.append(find)
            raise MismatchError

        with contextlib.suppress(MismatchError, Flaky, Unsatisfiable):
            search()
        if smallest:
            self._found(smallest[-1], seed)

    def described(self) -> list[str]:
        """Each find with the seed of its graph."""
        return [
            f"{key}: {find.what} (--graph {self.seeds[key]})" for key, find in self.finds.items()
        ]

    def _found(self, find: Find, seed: int) -> None:
        key = _kind(find)
        if key in self.finds:
            self.repeated += 1
            return
        self.finds[key], self.seeds[key] = find, seed
        self.on_find(self.described()[-1])
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{len(list(self.folder.glob('*.py'))):03d}_{find.graph.steps[-1].target}.py"
            (self.folder / name.replace("..", ".")).write_text(script(find))


def _kind(find: Find) -> str:
    """Steps, dtypes of the inputs and the outcome, without numbers."""
    steps = ",".join(step.target for step in find.graph.steps)
    dtypes = ",".join(sorted({str(x.dtype) for x in find.graph.calls[0]}))
    return f"{steps} {dtypes} {find.what.partition(':')[0] if ':' in find.what else 'values'}"
