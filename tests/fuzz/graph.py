"""A graph as data: inputs, weights, steps and outputs, with the calls to compare."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.export import Dim

Dimension = int | str


@dataclass(frozen=True)
class Ref:
    """A value: inputs are counted first, then weights, then outputs of the steps."""

    index: int


@dataclass(frozen=True)
class Size:
    """A size of a value, read when the graph runs."""

    index: int
    dim: int


@dataclass(frozen=True)
class Step:
    """A call.

    Attributes:
        target: "torch.add", "F.pad", or ".to" for a method of the first argument.
        args: Values, sizes, dtypes, numbers and lists of them.
        kwargs: The same by name.
        results: Number of tensors that it returns.
    """

    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: int = 1

    def function(self) -> Callable[..., Any]:
        owner, _, name = self.target.partition(".")
        if not owner:
            return lambda first, *rest, **given: getattr(first, name)(*rest, **given)
        if owner == "special":
            return LOCALS[name]
        return getattr({"torch": torch, "F": F}[owner], name)


def _getitem(x: torch.Tensor, *index: Any) -> torch.Tensor:
    return x[tuple(slice(*item) if isinstance(item, tuple) else item for item in index)]


# Calls that are no attribute of torch or of torch.nn.functional.
LOCALS: dict[str, Callable[..., Any]] = {
    "radd": lambda x, y: y + x,
    "rsub": lambda x, y: y - x,
    "rtruediv": lambda x, y: y / x,
    "rfloordiv": lambda x, y: y // x,
    "rmod": lambda x, y: y % x,
    "rpow": lambda x, y: y**x,
    "floordiv": lambda x, y: x // y,
    "getitem": _getitem,
}


@dataclass(frozen=True)
class Graph:
    """A graph and its calls.

    Attributes:
        inputs: Sizes of each input, a name where a size is dynamic.
        weights: Buffers of the module.
        steps: The calls, in order.
        outputs: Indices of the values that it returns.
        ranges: Minimum and maximum of each named size.
        calls: Inputs of each call; the graph is captured with those of the first.
    """

    inputs: tuple[tuple[Dimension, ...], ...]
    weights: tuple[torch.Tensor, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    ranges: dict[str, tuple[int, int]]
    calls: tuple[tuple[torch.Tensor, ...], ...]

    @property
    def first_result(self) -> int:
        return len(self.inputs) + len(self.weights)

    def module(self) -> torch.nn.Module:
        return module_of(self.source(), self.weights)

    def dynamic_shapes(self) -> Any:
        """For torch.export; None where no size is dynamic."""
        dims = {name: Dim(name, min=low, max=high) for name, (low, high) in self.ranges.items()}
        shapes = tuple(
            {axis: dims[size] for axis, size in enumerate(sizes) if isinstance(size, str)}
            for sizes in self.inputs
        )
        return shapes if any(shapes) else None

    def static(self) -> Graph:
        """The same without dynamic sizes, and with the calls that have the sizes of the first."""
        shapes = [tensor.shape for tensor in self.calls[0]]
        calls = [call for call in self.calls if [tensor.shape for tensor in call] == shapes]
        return replace(self, inputs=tuple(map(tuple, shapes)), ranges={}, calls=tuple(calls))

    def source(self) -> str:
        """`forward` as Python."""
        names = self.names()
        lines = [f"def forward(self{''.join(', ' + name for name in names[: len(self.inputs)])}):"]
        made = iter(names[self.first_result :])
        for step in self.steps:
            results = ", ".join(next(made) for _ in range(step.results))
            lines.append(f"    {results} = {_call_text(step, names)}")
        returned = ", ".join(names[index] for index in self.outputs)
        return "\n".join([*lines, f"    return ({returned},)", ""])

    def names(self) -> list[str]:
        results = sum(step.results for step in self.steps)
        return [
            *(f"x{index}" for index in range(len(self.inputs))),
            *(f"self.w{index}" for index in range(len(self.weights))),
            *(f"v{index}" for index in range(results)),
        ]


def module_of(source: str, weights: Sequence[torch.Tensor] = ()) -> torch.nn.Module:
    """The module of a source text."""
    space: dict[str, Any] = {"torch": torch, "F": F, "inf": float("inf"), "nan": float("nan")}
    space["special"] = type("special", (), {name: staticmethod(f) for name, f in LOCALS.items()})
    file = f"<graph {abs(hash(source))}>"
    exec(compile(source, file, "exec"), space)
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    module = type("Graph", (torch.nn.Module,), {"forward": space["forward"]})().eval()
    for index, weight in enumerate(weights):
        module.register_buffer(f"w{index}", weight.clone())
    return module


def _call_text(step: Step, names: Sequence[str]) -> str:
    args = [_text(arg, names) for arg in step.args]
    given = [f"{name}={_text(value, names)}" for name, value in step.kwargs.items()]
    if step.target.startswith("."):
        return f"{args[0]}{step.target}({', '.join([*args[1:], *given])})"
    return f"{step.target}({', '.join([*args, *given])})"


def _text(arg: Any, names: Sequence[str]) -> str:
    if isinstance(arg, Ref):
        return names[arg.index]
    if isinstance(arg, Size):
        return f"{names[arg.index]}.shape[{arg.dim}]"
    if isinstance(arg, list):
        return f"[{', '.join(_text(item, names) for item in arg)}]"
    if isinstance(arg, tuple):
        return f"({', '.join(_text(item, names) for item in arg)},)"
    return repr(arg)


def filled(arg: Any, values: Sequence[torch.Tensor]) -> Any:
    """An argument with values for its references."""
    if isinstance(arg, Ref):
        return values[arg.index]
    if isinstance(arg, Size):
        return values[arg.index].shape[arg.dim]
    if isinstance(arg, (list, tuple)):
        return type(arg)(filled(item, values) for item in arg)
    if isinstance(arg, dict):
        return {name: filled(item, values) for name, item in arg.items()}
    return arg


def references(arg: Any) -> Iterator[int]:
    """Indices of the values that an argument refers to."""
    if isinstance(arg, (Ref, Size)):
        yield arg.index
    elif isinstance(arg, (list, tuple)):
        for item in arg:
            yield from references(item)
    elif isinstance(arg, dict):
        yield from references(tuple(arg.values()))


Caller = Callable[[Step, Sequence[Any], dict[str, Any]], Any]


_DIVISIONS = frozenset(
    {
        *("torch.div", "torch.floor_divide", "torch.remainder", "torch.fmod"),
        *("special.floordiv", "special.rfloordiv", "special.rmod"),
    }
)


def plain(step: Step, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call in eager.

    Raises:
        ArithmeticError: The smallest integer is divided by -1, which ends a process on x86.
    """
    if step.target == "torch.lcm" and any(map(_has_least, args[:2])):
        raise ArithmeticError  # the greatest common divisor may be -1
    if step.target in _DIVISIONS:
        x, y = (args[1], args[0]) if step.target[:9] == "special.r" else args[:2]
        for dtype in (torch.int32, torch.int64):
            if torch.result_type(x, y) == dtype:
                least = torch.as_tensor(x) == torch.iinfo(dtype).min
                if bool((least & (torch.as_tensor(y) == -1)).any()):
                    raise ArithmeticError
    return step.function()(*args, **kwargs)


def _has_least(x: torch.Tensor) -> bool:
    return x.dtype in (torch.int32, torch.int64) and bool((x == torch.iinfo(x.dtype).min).any())


def results_of(step: Step, values: Sequence[torch.Tensor], call: Caller) -> list[torch.Tensor]:
    """What a step returns, as a list."""
    made = call(step, filled(step.args, values), filled(step.kwargs, values))
    found = list(made) if isinstance(made, (list, tuple)) else [made]
    assert len(found) == step.results, (step.target, len(found))
    return found


def evaluate(graph: Graph, inputs: Sequence[torch.Tensor], call: Caller) -> list[torch.Tensor]:
    """All values of a call."""
    values = [*inputs, *graph.weights]
    with torch.no_grad():
        for step in graph.steps:
            values += results_of(step, values, call)
    return values


def pruned(graph: Graph) -> Graph:
    """The graph without what its outputs do not need."""
    needed = set(graph.outputs)
    position = graph.first_result + sum(step.results for step in graph.steps)
    kept: list[tuple[int, Step]] = []
    for step in reversed(graph.steps):
        position -= step.results
        if needed & set(range(position, position + step.results)):
            kept.append((position, step))
            needed |= {*references(step.args), *references(step.kwargs)}
    count = len(graph.inputs)
    inputs = [index for index in range(count) if index in needed] or [0][:count]
    weights = [index for index in range(count, graph.first_result) if index in needed]
    order = inputs + weights
    for position, step in reversed(kept):
        order += range(position, position + step.results)
    moved = {old: new for new, old in enumerate(order)}
    sizes = tuple(graph.inputs[index] for index in inputs)
    used = {size for shape in sizes for size in shape if isinstance(size, str)}
    return Graph(
        sizes,
        tuple(graph.weights[index - count] for index in weights),
        tuple(moved_to(step, moved) for _, step in reversed(kept)),
        tuple(moved[index] for index in graph.outputs),
        {name: span for name, span in graph.ranges.items() if name in used},
        tuple(tuple(call[index] for index in inputs) for call in graph.calls),
    )


def moved_to(arg: Any, moved: dict[int, int]) -> Any:
    """An argument or step with other indices of its references."""
    if isinstance(arg, (Ref, Size)):
        return replace(arg, index=moved[arg.index])
    if isinstance(arg, Step):
        return replace(arg, args=moved_to(arg.args, moved), kwargs=moved_to(arg.kwargs, moved))
    if isinstance(arg, (list, tuple)):
        return type(arg)(moved_to(item, moved) for item in arg)
    if isinstance(arg, dict):
        return {name: moved_to(item, moved) for name, item in arg.items()}
    return arg
