"""dryrun: print what would be compiled to stdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from portrt.compiler.plan import Plan
from portrt.format.compile_report import CompileReport, fallback_lines
from portrt.format.dimensions import DataDependentSize, Dimension
from portrt.format.signature import InputSpec, OutputSpec

# Width for output to a file: wide enough not to break names, which can then be searched for.
_WIDTH_OF_FILES = 160


def print_plan(plan: Plan, engine_names: Sequence[str], report: CompileReport) -> None:
    """Print the blocks that would go to engines, and each node in PyTorch with its reason.

    Args:
        plan: The result of partition.
        engine_names: Backends that each block would be built for.
        report: Coverage of the plan.
    """
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    total = sum(block.node_count for block in plan.blocks)
    console.print(
        f"{len(plan.blocks)} blocks with {total} operators for {', '.join(engine_names)}; "
        f"{len(plan.left_out)} nodes in PyTorch. Nothing was built."
    )
    if plan.blocks:
        console.print(_blocks(plan))
    console.print(f"{report.summary()}.")
    for partial in report.partial_engines:
        console.print(str(partial), soft_wrap=True)
    if report.fallbacks:
        console.print("In PyTorch:")
    for item in report.fallbacks:
        for line in fallback_lines(item, report.flops):
            console.print(f"  {line}", soft_wrap=True)


def _blocks(plan: Plan) -> Table:
    table = _table("In engines", "block", "operators", "inputs", "outputs")
    for block in plan.blocks:
        outputs, inputs = (
            _tensors(block.outputs, block.inputs),
            _tensors(block.inputs, block.inputs),
        )
        table.add_row(block.name, str(block.node_count), inputs, outputs)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _tensors(specs: Iterable[InputSpec | OutputSpec], inputs: Sequence[InputSpec]) -> str:
    lines = []
    for spec in specs:
        sizes = ", ".join(_size(size, inputs) for size in spec.shape)
        lines.append(f"{spec.name}: {spec.dtype}({sizes})")
    return "\n".join(lines)


def _size(size: Any, inputs: Sequence[InputSpec]) -> str:
    """Return a size as text: "3", "s0[1..8]", or an expression of such."""
    if isinstance(size, Dimension):
        high = "" if size.max is None else size.max
        return f"{size.symbol}[{size.min}..{high}]"
    if isinstance(size, DataDependentSize):
        return f"{size.symbol}[0..{'' if size.max is None else size.max}]"
    if not isinstance(size, list):
        return str(size)
    name, *arguments = size
    if name == "dim":
        index, axis = arguments
        named = inputs[index].shape[axis]
        return named.symbol if isinstance(named, Dimension) else _size(named, inputs)
    return f"{name}({', '.join(_size(argument, inputs) for argument in arguments)})"
