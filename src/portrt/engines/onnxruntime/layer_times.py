"""Reads the times of the nodes of ONNX Runtime's optimized graph from its profiling trace."""

from __future__ import annotations

import json
import logging
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portrt.engines.base import LayerTime
from portrt.engines.onnxruntime.optimized_graph import GraphNode, nodes_behind
from portrt.errors import EngineError

logger = logging.getLogger(__name__)

_GRAPH = "optimized.onnx"
_WEIGHTS = "weights.bin"
_SUFFIX = "_kernel_time"


def write_to(options: Any, folder: Path) -> None:
    """Make a session write its trace, and its optimized graph, into a folder.

    The weights of that graph are not needed: they are written to the null device, through a link.
    Where no link can be made, the graph is not written.

    Args:
        options: The session's options; changed in place.
        folder: An empty folder.
    """
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    try:
        (folder / _WEIGHTS).symlink_to(os.devnull)
    except OSError:
        logger.info("layers are mapped by their names alone: no link to %s", os.devnull)
        return
    options.optimized_model_filepath = str(folder / _GRAPH)
    prefix = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{prefix}file_name", _WEIGHTS)
    options.add_session_config_entry(f"{prefix}min_size_in_bytes", "64")


def read_trace(trace: Path, folder: Path, model: bytes, *, skip: int) -> list[LayerTime]:
    """Read the trace of a session.

    Args:
        trace: A JSON list of Chrome's trace events.
        folder: The folder passed to `write_to`.
        model: The ONNX model before its optimization.
        skip: Number of warm-up calls, which are left out.

    Returns:
        The layers, in the order of their first call; each time is the median over the calls.

    Raises:
        EngineError: The trace cannot be read: ONNX Runtime does not escape names of nodes, so that
            one with a quote breaks the JSON.
    """
    try:
        timed = _timed_nodes(list(map(_Event.of, json.loads(trace.read_bytes()))))
    except (ValueError, LookupError, TypeError, AttributeError) as err:
        raise EngineError(
            f"ONNX Runtime wrote a trace that cannot be read: {err}",
            "Chrome's trace events in JSON",
            "profile with engine='eager'",
        ) from err
    names = _names_of_nodes(folder / _GRAPH, model, timed)
    return [
        LayerTime(
            name=name,
            kind=events[0].kind,
            seconds=statistics.median(event.microseconds for event in events[skip:]) / 1e6,
            nodes=names.get(name, ()),
            detail=events[-1].detail,
        )
        for name, events in timed.items()
        if len(events) > skip
    ]


@dataclass(frozen=True)
class _Event:
    """One call of a node; `name` is empty for other events."""

    name: str
    kind: str
    thread: int
    begin: int
    microseconds: int
    detail: str

    @classmethod
    def of(cls, raw: Any) -> _Event:
        name, args = str(raw["name"]), raw.get("args", {})
        is_node = raw["cat"] == "Node" and name.endswith(_SUFFIX)
        return cls(
            name.removesuffix(_SUFFIX) if is_node else "",
            str(args.get("op_name", "")),
            int(raw["tid"]),
            int(raw["ts"]),
            int(raw["dur"]),
            _detail(args) if is_node else "",
        )


def _timed_nodes(events: Iterable[_Event]) -> dict[str, list[_Event]]:
    """Group the events by node of the main graph, in the order of the first call.

    Events of a subgraph are left out: they are in the time of the node that runs it, such as a
    loop.
    """
    found: dict[str, list[_Event]] = {}
    busy: dict[int, int] = {}  # thread -> end of the node that it runs
    for event in sorted(events, key=lambda event: (event.begin, -event.microseconds)):
        if event.name and event.begin >= busy.get(event.thread, 0):
            busy[event.thread] = event.begin + event.microseconds
            found.setdefault(event.name, []).append(event)
    return found


def _detail(args: Mapping[str, Any]) -> str:
    """Describe outputs and execution provider of a node, such as "float 8x64, CPU"."""
    outputs = [
        f"{dtype} {'x'.join(map(str, shape))}".rstrip()
        for item in args.get("output_type_shape", ())
        for dtype, shape in item.items()
    ]
    provider = str(args.get("provider", "")).removesuffix("ExecutionProvider")
    return ", ".join([*outputs, provider] if provider else outputs)


def _names_of_nodes(
    graph: Path, model: bytes, layers: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Map each layer to the nodes of the block that it computes."""
    import onnx

    given = [GraphNode.of(node) for node in onnx.load_model_from_string(model).graph.node]
    if graph.exists():
        optimized = onnx.load(str(graph), load_external_data=False).graph.node
        made = [GraphNode.of(node) for node in optimized]
    else:
        made = [GraphNode(name, "", (), (), "") for name in layers]
    return nodes_behind(made, given)
