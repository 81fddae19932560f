"""Reads operator, module and line of user code of the nodes of a source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

_MAX_CHARS = 300
# The last frame is the innermost: the line that called the operator.
_FRAME = re.compile(r'File "([^"\n]*)", line (\d+), in [^\n]*(?:\n +([^\n]*))?')


@dataclass(frozen=True)
class SourceNode:
    """A node of a source.

    Attributes:
        target: Name of the operator.
        module: Path of the module that it was in; empty for the model itself.
        line: "file.py:12: the line", without the file's folder; empty where the file has none.
            Sources of blocks have none.
    """

    target: str
    module: str
    line: str


def source_nodes(graph: torch.fx.Graph) -> dict[str, SourceNode]:
    """Describe the calls in a graph by name, in the order of the graph."""
    return {
        printable(node.name): SourceNode(
            target=printable(_target(node.target)),
            module=_module(node.meta.get("nn_module_stack")),
            line=_line(node.meta.get("stack_trace")),
        )
        for node in graph.nodes
        if node.op == "call_function"
    }


def printable(text: str) -> str:
    """Escape unprintable characters, such as those of terminal codes, and cut to 300 characters."""
    if len(text) > _MAX_CHARS:
        text = text[: _MAX_CHARS - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _target(target: Any) -> str:
    """Name an operator: "aten.add.Tensor", or "mul" for Python's arithmetic on sizes."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return str(getattr(target, "__name__", target))


def _module(stack: Any) -> str:
    """Read the path of the innermost module.

    torch.export's stack is key -> (path, class), outermost first.
    """
    entries = list(stack.values()) if isinstance(stack, dict) else []
    inner = entries[-1] if entries else None
    if not isinstance(inner, (tuple, list)) or not inner or not isinstance(inner[0], str):
        return ""
    return printable(inner[0])


def _line(trace: Any) -> str:
    frames = _FRAME.findall(trace) if isinstance(trace, str) else []
    if not frames:
        return ""
    path, number, code = frames[-1]
    name = re.split(r"[/\\]", path)[-1]
    return printable(f"{name}:{number}: {code.strip()}" if code.strip() else f"{name}:{number}")
