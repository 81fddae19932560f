"""Draws a graph: each step is run in eager for every call before the next one is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from fuzz.graph import Graph, Ref, Size, Step, moved_to, plain, pruned, references, results_of
from fuzz.values import ALL, FLOATS, INTEGERS, NUMBERS, SIGNED, STYLES, tensor

LARGEST = 4096  # elements of a value
_SUPPORTED = frozenset(ALL)


class NotHereError(Exception):
    """A step cannot follow the values that there are."""


class Builder:
    """The graph so far: what operator tables draw their arguments from."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self._draw = draw
        self.steps: list[Step] = []
        self.failed: list[str] = []
        self._inputs: list[int] = []
        self._dims: dict[int, tuple[int | str, ...]] = {}
        self._weights: list[int] = []
        self._values: list[list[torch.Tensor]] = []
        self._used: set[int] = set()
        self._new: list[tuple[str, Any]] = []
        self._draw_sizes()

    # drawing

    def int(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def boolean(self) -> bool:
        return self._draw(st.booleans())

    def choice(self, options: Sequence[Any]) -> Any:
        if not options:
            raise NotHereError
        return options[self._draw(st.integers(0, len(options) - 1))]

    def rarely(self) -> bool:
        return self._draw(st.integers(0, 9)) == 9

    # sizes

    def _draw_sizes(self) -> None:
        self.ranges: dict[str, tuple[int, int]] = {}
        sample: dict[str, int] = {}
        for name in "ab"[: self.int(0, 2)]:
            low, high = self.choice((1, 0, 2)), self.int(4, 9)
            sample[name] = self.int(2, high)
            if sample[name] in list(sample.values())[:-1]:
                sample[name] = sample[name] % high + 1 if sample[name] != high else 2
            self.ranges[name] = (low, high)
        self.sizes = [sample, sample]
        for _ in range(2 if sample else 0):
            self.sizes.append({name: self._size_in(*span) for name, span in self.ranges.items()})

    def _size_in(self, low: int, high: int) -> int:
        return self.choice((low, max(low, 1), high, self.int(low, high)))

    def _dimension(self) -> int | str:
        names = list(self.ranges)
        if names and self.boolean():
            return self.choice(names)
        return self.choice((2, 3, 1, 4, 5, 2, 3, 4, 2, 0 if self.rarely() else 3))

    def dims_of(self, ref: Ref) -> list[int | str]:
        """Sizes of a value; names where they are dynamic."""
        found: list[int | str] = []
        for axis in range(self.rank(ref)):
            by_call = [value.shape[axis] for value in self._of(ref)]
            names = [
                name for name in self.ranges if [sizes[name] for sizes in self.sizes] == by_call
            ]
            if len(set(by_call)) == 1:
                found.append(by_call[0])
            elif names:
                found.append(names[0])
            else:
                raise NotHereError
        return found

    # values

    def _of(self, ref: Ref) -> list[torch.Tensor]:
        return self._values[ref.index]

    def sample(self, ref: Ref) -> torch.Tensor:
        return self._of(ref)[0]

    def rank(self, ref: Ref) -> int:
        return self.sample(ref).dim()

    def dtype(self, ref: Ref) -> torch.dtype:
        return self.sample(ref).dtype

    def least(self, ref: Ref, dim: int) -> int:
        """The smallest size over all calls."""
        return min(value.shape[dim] for value in self._of(ref))

    def size(self, ref: Ref, dim: int) -> int | Size:
        """A size as an argument: a number where it is static."""
        by_call = {value.shape[dim] for value in self._of(ref)}
        return by_call.pop() if len(by_call) == 1 else Size(ref.index, dim % self.rank(ref))

    def new(self, dtype: torch.dtype, dims: Sequence[int | str], style: str | None = None) -> Ref:
        """A new input, or a weight where no size is dynamic."""
        style = style or self.choice(STYLES)
        seed = self.int(0, 10_000)
        index = len(self._values)
        static = all(isinstance(size, int) for size in dims)
        if static and self._inputs and self.rarely():
            shape = [int(size) for size in dims]
            self._values.append([tensor(shape, dtype, style, seed)] * len(self.sizes))
            self._weights.append(index)
            return Ref(index)
        made = []
        for call, sizes in enumerate(self.sizes):
            shape = [sizes[size] if isinstance(size, str) else size for size in dims]
            made.append(tensor(shape, dtype, style, seed + call))
        self._values.append(made)
        self._inputs.append(index)
        self._dims[index] = tuple(dims)
        return Ref(index)

    def value(
        self,
        dtypes: Sequence[torch.dtype] = ALL,
        ranks: tuple[int, int] = (0, 5),
        fits: Callable[[torch.Tensor], bool] = lambda value: True,
    ) -> Ref:
        """A value of one of the dtypes and ranks; recent ones are likelier."""
        found = [
            index
            for index in range(len(self._values) - 1, -1, -1)
            if self._values[index][0].dtype in dtypes
            and ranks[0] <= self._values[index][0].dim() <= ranks[1]
            and all(map(fits, self._values[index]))
        ]
        if found and not self.rarely():
            return Ref(found[min(self.int(0, len(found) - 1), self.int(0, len(found) - 1))])
        dims = [self._dimension() for _ in range(self.int(ranks[0], min(ranks[1], 5)))]
        ref = self.new(self.choice(dtypes), dims)
        if not all(map(fits, self._of(ref))):
            raise NotHereError
        return ref

    def any(self, ranks: tuple[int, int] = (0, 5)) -> Ref:
        return self.value(ALL, ranks)

    def float(self, ranks: tuple[int, int] = (0, 5)) -> Ref:
        return self.value(FLOATS, ranks)

    def number(self, ranks: tuple[int, int] = (0, 5)) -> Ref:
        return self.value(NUMBERS, ranks)

    def integer(self, ranks: tuple[int, int] = (0, 5)) -> Ref:
        return self.value(INTEGERS, ranks)

    def like(self, ref: Ref, dtypes: Sequence[torch.dtype] | None = None) -> Ref:
        """A value that broadcasts with another one, mostly of its dtype."""
        dtypes = dtypes or ((self.dtype(ref),) if self.boolean() else _kin(self.dtype(ref)))
        if self.boolean():
            dims = self.dims_of(ref)
            dims = dims[self.int(0, len(dims)) :] if self.rarely() else dims
            dims = [1 if self.rarely() else size for size in dims]
            return self.new(self.choice(dtypes), dims)
        return self._fitting(ref, dtypes)

    def same(self, ref: Ref, dtype: torch.dtype | None = None) -> Ref:
        """A value of the same sizes and dtype."""
        wanted = [value.shape for value in self._of(ref)]
        found = [
            index
            for index, values in enumerate(self._values)
            if [value.shape for value in values] == wanted
            and values[0].dtype == (dtype or self.dtype(ref))
        ]
        if len(found) > 1 and self.boolean():
            return Ref(self.choice(found))
        return self.new(dtype or self.dtype(ref), self.dims_of(ref))

    def _fitting(self, ref: Ref, dtypes: Sequence[torch.dtype]) -> Ref:
        found = [
            index
            for index, values in enumerate(self._values)
            if values[0].dtype in dtypes and all(map(_broadcast, values, self._of(ref)))
        ]
        return Ref(self.choice(found[::-1]))

    def scalar(self, dtype: torch.dtype) -> int | float | bool:
        """A number, mostly of the dtype's kind."""
        if dtype.is_floating_point and not self.rarely():
            return self.choice((1.0, 0.5, 2.0, -1.5, 0.0, 3.0, 0.1, -0.0, 100.0, 1e-3))
        if self.rarely():
            return self.choice((True, 0.5, -1.5))
        return self.choice((1, 2, 3, 0, 7, 5, 10, -1 if dtype != torch.uint8 else 4))

    def dim(self, ref: Ref) -> int:
        rank = self.rank(ref)
        return self.int(-rank, rank - 1) if rank else self.choice((0, -1))

    def dims(self, ref: Ref, least: int = 1) -> list[int]:
        """Distinct dimensions, some of them counted from the end."""
        rank = self.rank(ref)
        if rank < least:
            raise NotHereError
        left = list(range(rank))
        found = []
        for _ in range(self.int(least, rank)):
            axis = left.pop(self.int(0, len(left) - 1))
            found.append(axis - rank if self.boolean() else axis)
        return found

    # steps

    def add(self, target: str, *args: Any, results: int = 1, **kwargs: Any) -> None:
        """Add a step if eager takes it in every call."""
        step = Step(target, args, kwargs, results)
        made: list[list[torch.Tensor]] = []
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                for call in range(len(self.sizes)):
                    values = [value[call] for value in self._values]
                    made.append([value.clone() for value in results_of(step, values, plain)])
        except Exception as err:
            self.failed.append(f"{target}: {type(err).__name__}")
            raise NotHereError from err
        if any(
            (value.dtype, value.dim()) != (first.dtype, first.dim())
            for results in made
            for value, first in zip(results, made[0], strict=True)
        ):
            raise NotHereError  # a rank that depends on a size: torch.export fixes it
        flat = [value for results in made for value in results]
        if any(v.dtype not in _SUPPORTED or v.numel() > LARGEST or v.dim() > 5 for v in flat):
            raise NotHereError
        self.steps.append(step)
        self._values += [list(by_call) for by_call in zip(*made, strict=True)]

    def graph(self) -> Graph:
        """The graph; it returns what no step uses, and now and then a value that one does."""
        order = [*self._inputs, *self._weights]
        results = [i for i in range(len(self._values)) if i not in set(order)]
        moved = {old: new for new, old in enumerate([*order, *results])}
        used = {i for step in self.steps for i in references((step.args, step.kwargs))}
        outputs = [i for i in results if i not in used or self.rarely()][-12:]
        return pruned(
            Graph(
                tuple(self._dims[index] for index in self._inputs),
                tuple(self._values[index][0] for index in self._weights),
                tuple(moved_to(step, moved) for step in self.steps),
                tuple(moved[index] for index in outputs),
                self.ranges,
                tuple(
                    tuple(self._values[index][call] for index in self._inputs)
                    for call in range(len(self.sizes))
                ),
            )
        )


def _kin(dtype: torch.dtype) -> Sequence[torch.dtype]:
    return ALL if dtype == torch.bool else NUMBERS if dtype in SIGNED else (dtype, *NUMBERS)


def _broadcast(one: torch.Tensor, other: torch.Tensor) -> bool:
    pairs = zip(reversed(one.shape), reversed(other.shape), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)
