"""What a compiled module shows of itself: its inputs, its blocks, and what runs each here."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt.graphs import symbols
from portrt.graphs.program_inputs import user_input_nodes
from portrt.runtime.report import BlockReport, report


def text_of(program: ExportedProgram) -> str:
    """Return a text of several lines; opens no engine."""
    lines = [f"{name}: {described}" for name, described in _inputs(program).items()]
    for block in _blocks(program):
        lines += str(block).splitlines()
    return "\n".join(["CompiledModule(", *(f"  {line}" for line in lines), ")"])


def html_of(program: ExportedProgram) -> str:
    """Return the same as HTML tables, for notebooks."""
    inputs = [[name, described] for name, described in _inputs(program).items()]
    blocks = _blocks(program)
    rows = [
        [f"{block.name} ({block.node_count} operators)", backend, str(verdict)]
        for block in blocks
        for backend, verdict in block.verdicts
    ]
    runs = [[block.name, block.runs_as or "nothing"] for block in blocks]
    return "".join(
        [
            _table(["input", "dtype and sizes"], inputs),
            _table(["block", "runs here as"], runs),
            _table(["block", "engine", "can it run here"], rows),
        ]
    )


def _table(columns: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td><pre>{html.escape(cell)}</pre></td>' for cell in row)}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _inputs(program: ExportedProgram) -> dict[str, str]:
    """Return input -> dtype and sizes, such as "float32 (1..32, 64)"."""
    ranges = program.range_constraints
    found = {}
    for name, node in user_input_nodes(program).items():
        value: Any = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            found[name] = repr(value)
            continue
        sizes = [_size(size, ranges) for size in value.shape]
        comma = "," if len(sizes) == 1 else ""
        dtype = str(value.dtype).removeprefix("torch.")
        found[name] = f"{dtype} ({', '.join(sizes)}{comma})"
    return found


def _size(size: int | torch.SymInt, ranges: Mapping[Any, Any]) -> str:
    if isinstance(size, int):
        return str(size)
    low, high = symbols.range_of(size, ranges)
    return f"{low}.." if high is None else f"{low}..{high}"


def _blocks(program: ExportedProgram) -> list[BlockReport]:
    return report(program, _device_of(program))


def _device_of(program: ExportedProgram) -> str:
    """Return the device type of the first input that is a tensor."""
    for node in user_input_nodes(program).values():
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            return value.device.type
    return "cpu"
