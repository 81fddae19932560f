"""Times each node of a graph that runs in PyTorch."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from portrt.engines.base import LayerTime

# Calls that are not counted: the first ones allocate, tune and compile.
WARM_UP = 3


class NodeTimes(torch.fx.Interpreter):
    """Runs a graph node by node and records the time of each.

    On a GPU it is the time between two events around the node on the current stream: of a node
    whose launch takes longer than its kernel, the time of the launch.

    Args:
        module: The graph.
        device: Device that it runs on.
    """

    def __init__(self, module: torch.fx.GraphModule, device: torch.device) -> None:
        super().__init__(module)
        self._cuda = device if device.type == "cuda" else None
        self._node: torch.fx.Node | None = None
        self._seconds: dict[torch.fx.Node, list[float]] = defaultdict(list)
        self._events: list[tuple[torch.fx.Node, Any, Any]] = []
        self._details: dict[torch.fx.Node, str] = {}

    def run_once(self, flat: Sequence[Any]) -> Any:
        """Run on flat inputs; return the flat outputs."""
        result = self.run(*flat, enable_io_processing=False)
        if self._events:
            torch.cuda.synchronize(self._cuda)
            for node, begin, end in self._events:
                self._seconds[node].append(begin.elapsed_time(end) / 1e3)
            self._events.clear()
        return result

    def forget(self) -> None:
        """Drop the times so far, which are those of warm-up calls."""
        self._seconds.clear()

    def layers(self) -> list[LayerTime]:
        """Return the operators with their median times, in the order of the graph."""
        return [
            LayerTime(
                name=node.name,
                kind=str(node.target),
                seconds=statistics.median(self._seconds[node]),
                nodes=(node.name,),
                detail=self._details[node],
            )
            for node in self.graph.nodes
            if self._seconds.get(node) and is_operator(node)
        ]

    def run_node(self, n: torch.fx.Node) -> Any:
        self._node = n
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        node = self._node
        assert node is not None
        if self._cuda is not None:
            untyped: Any = torch.cuda.Event
            begin, end = untyped(enable_timing=True), untyped(enable_timing=True)
            begin.record()
            result = super().call_function(target, args, kwargs)
            end.record()
            self._events.append((node, begin, end))
        else:
            started = time.perf_counter()
            result = super().call_function(target, args, kwargs)
            self._seconds[node].append(time.perf_counter() - started)
        if node not in self._details:
            self._details[node] = describe(result)
        return result


def is_operator(node: torch.fx.Node) -> bool:
    """Return whether a node calls an operator, and not Python's arithmetic on sizes."""
    return isinstance(node.target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator))


def describe(value: Any) -> str:
    """Describe one or several tensors by dtype and shape, such as "float32 8x64"."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join(
        f"{str(item.dtype).removeprefix('torch.')} {'x'.join(map(str, item.shape))}".rstrip()
        for item in values
        if isinstance(item, torch.Tensor)
    )
