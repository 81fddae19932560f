"""Other sizes of a program's inputs: the ends of the ranges, and small ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.graphs import nested, symbols
from portrt.graphs.program_inputs import user_input_nodes

# Symbol -> its size.
Sizes = Mapping[Any, int]

# How far from a wanted size one that the guards admit is looked for.
_REACH = 64
_WAYS = ("smallest sizes", "sizes of 1", "odd sizes", "sizes of 0", "largest sizes")
_EACH = ("sizes of 1", "sizes of 0")  # drawn for one dimension at a time as well
_RECURRENT = ("aten.lstm", "aten.gru", "aten.rnn")


class SizeChooser:
    """Sizes that the program's ranges and guards admit.

    Args:
        program: The captured program.
        flat: Its flat example inputs.
    """

    def __init__(self, program: ExportedProgram, flat: Sequence[Any]) -> None:
        self._program = program
        self._flat = flat
        self._values = [node.meta.get("val") for node in user_input_nodes(program).values()]
        self._example = _example_sizes(self._values, flat)
        self._guards: Any = None

    def draws(self) -> Iterator[tuple[str, Sizes]]:
        """Yield other sizes with a label: first those of which a few elements are enough."""
        ranges = {symbol: self._range(symbol) for symbol in self._example}
        # ONNX Runtime ends the process on a recurrent layer without elements.
        takes_nothing = not any(
            str(node.target).startswith(_RECURRENT)
            for node in nested.all_nodes(self._program.graph_module)
        )
        ways: list[tuple[str, dict[Any, int]]] = []
        for label in _WAYS:
            wanted = {
                symbol: _size(label, low, high, self._example[symbol])
                for symbol, (low, high) in ranges.items()
            }
            ways.append((label, wanted))
            if label in _EACH and len(ranges) > 1:
                ways += [(label, {**self._example, s: wanted[s]}) for s in ranges]
        seen = [self._example]
        for label, wanted in ways:
            if 0 in wanted.values() and not takes_nothing:
                continue
            found = self._admitted(wanted, ranges)
            if found is not None and found not in seen:
                seen.append(found)
                yield label, found

    def shape(self, index: int, sizes: Sizes) -> tuple[int, ...]:
        """Return the shape of a flat input that is a tensor."""
        value: Any = self._values[index]
        return tuple(_evaluated(size, sizes) for size in value.shape)

    def value(self, index: int, sizes: Sizes) -> Any:
        """Return a flat input that is not a tensor: a size where it is one."""
        value = self._values[index]
        return _evaluated(value, sizes) if isinstance(value, torch.SymInt) else self._flat[index]

    def names(self, sizes: Sizes) -> dict[str, int]:
        """Return name of a dimension, such as "x[0]" -> its size, for a record."""
        found: dict[str, int] = {}
        seen: set[Any] = set()
        for name, value in zip(user_input_nodes(self._program), self._values, strict=True):
            for axis, size in enumerate(getattr(value, "shape", ())):
                if isinstance(size, torch.SymInt):
                    expression = torch_internals.expression_of(size)
                    if expression not in seen:
                        seen.add(expression)
                        found[f"{name}[{axis}]"] = _evaluated(size, sizes)
        return found

    @property
    def example(self) -> Sizes:
        """The sizes of the example inputs."""
        return self._example

    def _range(self, symbol: Any) -> tuple[int, int | None]:
        return symbols.bounds_of(self._program.range_constraints.get(symbol))

    def _admitted(
        self, wanted: Sizes, ranges: Mapping[Any, tuple[int, int | None]]
    ) -> dict[Any, int] | None:
        """Return sizes near the wanted ones that ranges and guards admit, or None."""
        inside = {
            symbol: max(low, size if high is None else min(size, high))
            for (symbol, size), (low, high) in zip(wanted.items(), ranges.values(), strict=True)
        }
        if inside != dict(wanted):
            return None
        if self._fits(inside):
            return inside
        found = dict(self._example)  # one size after another, each as near as the guards allow
        for symbol, size in inside.items():
            low, high = ranges[symbol]
            for step in range(_REACH + 1):
                near = next(
                    (
                        other
                        for other in dict.fromkeys((size + step, size - step))
                        if other >= low
                        and (high is None or other <= high)
                        and self._fits({**found, symbol: other})
                    ),
                    None,
                )
                if near is not None:
                    found[symbol] = near
                    break
        return found

    def _fits(self, sizes: Sizes) -> bool:
        """Return whether the guards admit sizes."""
        if self._guards is None:
            module = self._program.module()
            self._guards = torch_internals.guards_of(module) or torch.nn.Module()
        try:
            flat = [
                torch.empty(1, dtype=value.dtype).expand(self.shape(index, sizes))
                if isinstance(value, torch.Tensor)
                else self.value(index, sizes)
                for index, value in enumerate(self._values)
            ]
            if type(self._guards) is not torch.nn.Module:
                self._guards(*flat)
        except Exception:
            return False
        return True


def _size(label: str, low: int, high: int | None, now: int) -> int:
    """Return a size within a range, if there is such a one, for an entry of `_WAYS`."""
    if label == "smallest sizes":
        return low or 1
    if label == "largest sizes":
        return now * 2 + 1 if high is None else high
    if label == "odd sizes":
        return now + 1 if high is None or now < high else now - 1
    return int(label.rpartition(" ")[2])


def _example_sizes(values: Sequence[Any], flat: Sequence[Any]) -> dict[Any, int]:
    """Return symbol -> its size in the example inputs, for sizes that inputs give."""
    found: dict[Any, int] = {}
    for value, given in zip(values, flat, strict=True):
        pairs = (
            zip(value.shape, given.shape, strict=True)
            if isinstance(value, torch.Tensor) and isinstance(given, torch.Tensor)
            else [(value, given)]
        )
        for size, number in pairs:
            if not isinstance(size, torch.SymInt):
                continue
            expression = torch_internals.expression_of(size)
            parts = symbols.linear(expression)
            if parts is not None:
                symbol, scale, offset = parts
                found.setdefault(symbol, (int(number) - offset) // scale)
    return found


def _evaluated(size: Any, sizes: Sizes) -> int:
    if not isinstance(size, torch.SymInt):
        return int(size)
    return int(torch_internals.expression_of(size).subs(dict(sizes)))
