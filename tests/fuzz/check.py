"""One graph: compile, save, load in another process, run, compare."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fuzz.compare import Reference
from fuzz.graph import Graph, moved_to, pruned, references
from fuzz.worker import CrashError, Worker

# Of sizes: the guards of torch.export, and results that would have a negative size.
_REFUSALS = ("AssertionError: Guard failed", "InputError: with these inputs of")

_NO_ENGINE = "BuildError: no engine of any block could be built"


@dataclass
class Counts:
    """What a run did."""

    graphs: int = 0
    calls: int = 0
    steps: int = 0
    elements: int = 0
    determined: int = 0
    without_engine: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))


@dataclass(frozen=True)
class Find:
    """A mismatch: the graph, what differs, in which call, and in which output if in one."""

    graph: Graph
    what: str
    call: int = 0
    output: int | None = None


class Checker:
    """Compares graphs with eager; two processes do the work."""

    def __init__(self) -> None:
        self._compile, self._run = Worker("compile"), Worker("run")
        self._folder = tempfile.TemporaryDirectory()
        self.counts = Counts()

    def close(self) -> None:
        self._compile.close()
        self._run.close()
        self._folder.cleanup()

    def check(self, graph: Graph) -> Find | None:
        """The first mismatch of a graph."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._check(graph)

    def _check(self, graph: Graph) -> Find | None:
        path = str(Path(self._folder.name) / "graph.pt2")
        self.counts.graphs += 1
        self.counts.steps += len(graph.steps)
        try:
            reply = self._compile({"graph": graph, "path": path})
            if "refused" in reply and graph.ranges:
                self.counts.skipped["made static: torch.export refuses the dynamic sizes"] += 1
                graph = graph.static()
                reply = self._compile({"graph": graph, "path": path})
        except CrashError as err:
            return Find(graph, f"compile: {err}")
        if "refused" in reply:
            self.counts.skipped[f"torch.export refuses: {reply['refused'][:70]}"] += 1
            return None
        if reply.get("error", "").startswith(_NO_ENGINE) and "NOT_IMPLEMENTED" in reply["error"]:
            self.counts.skipped["all operators lack a kernel, as the error says"] += 1
            return None
        if "error" in reply:
            return Find(graph, f"compile: {reply['error']}")
        self.counts.left.update(reply["left"])
        self.counts.without_engine += reply["engines"] == 0
        try:
            found = self._run({"path": path, "calls": graph.calls})
        except CrashError as err:
            return Find(graph, f"run: {err}")
        if "error" in found:
            return Find(graph, f"load: {found['error']}")
        return self._compared(graph, found["results"], refuses=reply["refuses"])

    def values(self, graph: Graph, call: int) -> list[torch.Tensor] | None:
        """Outputs of the compiled graph in a call."""
        path = str(Path(self._folder.name) / "values.pt2")
        try:
            if "engines" not in self._compile({"graph": graph, "path": path}):
                return None
            (result,) = self._run({"path": path, "calls": [graph.calls[call]]})["results"]
        except (CrashError, KeyError):
            return None
        return None if isinstance(result, str) else result

    def _compared(self, graph: Graph, results: list[Any], *, refuses: bool) -> Find | None:
        for position, (call, result) in enumerate(zip(graph.calls, results, strict=True)):
            self.counts.calls += 1
            if refuses and isinstance(result, str) and result.startswith(_REFUSALS):
                self.counts.skipped["sizes refused, as was said at compile"] += 1
                continue
            reference = Reference(graph, call)
            output = None
            if isinstance(result, str):
                what = f"run: {result}"
            else:
                texts = [reference.difference(i, got) for i, got in enumerate(result)]
                what = next(filter(None, texts), "")
                output = texts.index(what) if what else None
                stable, total = reference.determined()
                self.counts.determined += stable
                self.counts.elements += total
            if what and self._is_exports(graph, position, reference):
                self.counts.skipped["the program of torch.export differs from the module"] += 1
            elif what:
                return Find(graph, what, position, output)
        return None

    def _is_exports(self, graph: Graph, call: int, reference: Reference) -> bool:
        """Whether the captured program already differs from the module."""
        try:
            reply = self._compile({"role": "captured", "graph": graph})
        except CrashError:
            return False
        if "results" not in reply:
            return False
        result = reply["results"][call]
        if isinstance(result, str):
            return True
        return any(reference.difference(i, got) for i, got in enumerate(result))


@contextmanager
def checker() -> Iterator[Checker]:
    """A checker that ends its processes."""
    made = Checker()
    try:
        yield made
    finally:
        made.close()


def ancestors(find: Find) -> Graph:
    """The graph of a find with the output that differs alone."""
    graph = find.graph
    outputs = graph.outputs if find.output is None else (graph.outputs[find.output],)
    return pruned(replace(graph, outputs=outputs))


def narrowed(made: Checker, find: Find) -> Find | None:
    """The first step whose results differ for the inputs that the engine gave it, alone."""
    graph = find.graph
    first = graph.first_result
    total = first + sum(step.results for step in graph.steps)
    everything = replace(graph, outputs=tuple(range(first, total)))
    by_call: list[list[torch.Tensor]] = []
    for call in range(len(graph.calls)):
        values = made.values(everything, call)
        if values is None:
            return None
        by_call.append([*graph.calls[call], *graph.weights, *values])
    position = first
    for step in graph.steps:
        used = sorted({*references(step.args), *references(step.kwargs)})
        dims = _dims(graph, [[values[index] for values in by_call] for index in used])
        if dims is not None and used:
            moved = {old: new for new, old in enumerate(used)}
            alone = Graph(
                dims,
                (),
                (
                    replace(
                        step, args=moved_to(step.args, moved), kwargs=moved_to(step.kwargs, moved)
                    ),
                ),
                tuple(range(len(used), len(used) + step.results)),
                {n: r for n, r in graph.ranges.items() if any(n in sizes for sizes in dims)},
                tuple(tuple(values[index] for index in used) for values in by_call),
            )
            if _differs_alone(alone, by_call, position):
                found = made.check(alone)
                if found is not None:
                    return found
        position += step.results
    return None


def _differs_alone(alone: Graph, by_call: list[list[torch.Tensor]], position: int) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call, values in zip(alone.calls, by_call, strict=True):
            reference = Reference(alone, call)
            for index in range(len(alone.outputs)):
                if reference.difference(index, values[position + index]):
                    return True
    return False


def _dims(graph: Graph, values: list[list[torch.Tensor]]) -> Any:
    """Sizes by name of values that are given for each call; None where a size has no name."""
    sizes: dict[tuple[int, ...], str] = {}
    for sizes_of, index in ((s, i) for i, s in enumerate(graph.inputs)):
        for axis, size in enumerate(sizes_of):
            if isinstance(size, str):
                sizes[tuple(call[index].shape[axis] for call in graph.calls)] = size
    found = []
    for by_call in values:
        dims: list[int | str] = []
        for axis in range(by_call[0].dim()):
            seen = tuple(value.shape[axis] for value in by_call)
            if len(set(seen)) == 1:
                dims.append(seen[0])
            elif seen in sizes:
                dims.append(sizes[seen])
            else:
                return None
        found.append(tuple(dims))
    return tuple(found)
