"""Coverage of a plan by engines; computed and logged before anything is built."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from portrt.compiler.parts.cut import reasons
from portrt.compiler.parts.share import Share, left_of
from portrt.compiler.plan import Block, FallbackNode, Plan
from portrt.format.atomic import replacing
from portrt.format.compile_report import (
    BlockCoverage,
    CompileReport,
    Fallback,
    MissingEngine,
    PartialEngine,
    fallback_lines,
)
from portrt.graphs import nested
from portrt.graphs.control_flow import subgraph_sites
from portrt.graphs.flops import flops_of
from portrt.graphs.source_line import source_line

logger = logging.getLogger(__name__)

_GETITEM = "getitem"
_MAX_FALLBACKS = 100  # the report is part of the manifest, an argument of each engine call
_MAX_CHARS = 400
_MAX_LOGGED = 10


def coverage(
    plan: Plan,
    missing: Iterable[MissingEngine] = (),
    shares: Mapping[str, Sequence[Share]] | None = None,
) -> CompileReport:
    """Make the report of a plan whose graph still has its blocks.

    Args:
        plan: The plan.
        missing: Engines that could not be built.
        shares: Name of a block -> how much of it each of its engines has; None is all of it.
    """
    shares = shares or {}
    blocks = tuple(
        BlockCoverage(
            block.name, block.node_count, _flops(nested.all_nodes(block.program.graph_module))
        )
        for block in plan.blocks
    )
    nodes = {
        node.name: node
        for site in subgraph_sites(plan.graph_module)
        for node in site.module.graph.nodes
    }
    left = [item for item in plan.left_out if item.target != _GETITEM]
    flops = {item.node: flops_of(nodes[item.node]) for item in left if item.node in nodes}
    in_blocks, around = sum(b.flops for b in blocks), sum(flops.values())
    count = sum(block.nodes for block in blocks)
    inside = [item for block in plan.blocks for item in left_of(shares.get(block.name, ()))]
    inside = [item for item in inside if item.target != _GETITEM]
    by_name = {node.name: node for block in plan.blocks for node in _nodes_in(plan, block)}
    flops |= {item.node: flops_of(by_name[item.node]) for item in inside}
    inside = [replace(item, source=_line(by_name[item.node])) for item in inside]
    in_pytorch = sum(flops.values())
    return CompileReport(
        nodes=count + len(left),
        nodes_in_engines=count - len(inside),
        flops=in_blocks + around,
        flops_in_engines=in_blocks + around - in_pytorch,
        blocks=blocks,
        fallbacks=_fallbacks([*left, *inside], flops),
        missing_engines=tuple(missing),
        partial_engines=tuple(
            PartialEngine(
                block.name,
                share.backend,
                share.parts,
                block.node_count,
                share.nodes_in_engines,
                one_line(reasons(share.left_out)),
            )
            for block in plan.blocks
            for share in shares.get(block.name, ())
            if share.parts
        ),
    )


def _nodes_in(plan: Plan, block: Block) -> Iterable[torch.fx.Node]:
    """Yield the nodes of a block as they were in the model, with their lines."""
    for site in subgraph_sites(plan.graph_module):
        held = getattr(site.module, block.name, None)
        if isinstance(held, torch.fx.GraphModule):
            yield from nested.all_nodes(held)


def _line(node: torch.fx.Node) -> str:
    return source_line(node.meta.get("stack_trace"))


def _flops(nodes: Iterable[torch.fx.Node]) -> int:
    return sum(flops_of(node) for node in nodes if node.op == "call_function")


def _fallbacks(left: Sequence[FallbackNode], flops: Mapping[str, int]) -> tuple[Fallback, ...]:
    groups: dict[tuple[str, str, str], list[FallbackNode]] = {}
    for item in left:
        groups.setdefault((item.target, item.reason, item.source), []).append(item)
    found = [
        Fallback(
            operator=one_line(items[0].target),
            count=len(items),
            flops=sum(flops.get(item.node, 0) for item in items),
            reason=one_line(items[0].reason),
            remedy=one_line(items[0].remedy),
            source=one_line(items[0].source),
            module=one_line(items[0].module),
            asked=items[0].asked,
        )
        for items in groups.values()
    ]
    found.sort(key=lambda item: -item.flops)
    kept, rest = found[:_MAX_FALLBACKS], found[_MAX_FALLBACKS:]
    if rest:
        reason = f"{len(rest)} further groups of calls"
        count, total = sum(r.count for r in rest), sum(r.flops for r in rest)
        kept.append(Fallback("others", count, total, reason, "", "", "", False))
    return tuple(kept)


def one_line(text: str) -> str:
    """Shorten text to one printable line for the manifest."""
    short = " ".join(text.split())[:_MAX_CHARS]
    return "".join(char if char.isprintable() else "?" for char in short)


def log_coverage(report: CompileReport) -> None:
    """Log what stays in PyTorch, at WARNING unless user options request all of it."""
    unasked = [item for item in report.fallbacks if not item.asked]
    logged = unasked or list(report.fallbacks)
    text = "".join(
        f"\n  {line}"
        for item in logged[:_MAX_LOGGED]
        for line in fallback_lines(item, report.flops)
    )
    if len(logged) > _MAX_LOGGED:
        text += f"\n  and {len(logged) - _MAX_LOGGED} more: see the report"
    level = logging.WARNING if unasked else logging.INFO
    if logged:
        logger.log(level, "%s; in PyTorch:%s", report.summary(), text)
    else:
        logger.info("%s", report.summary())


def write_report(report: CompileReport, target: Any) -> None:
    """Print the report (True), write it as JSON to a path, or call a function with it.

    Args:
        report: The report.
        target: The option `report` of `compile`.

    Raises:
        SaveError: The file cannot be written.
    """
    if callable(target):
        target(report)
    elif isinstance(target, str):
        _write(report, Path(os.fspath(target)))
    elif target:
        from rich.console import Console

        console = Console(highlight=False, markup=False, soft_wrap=True)
        for line in report.lines():
            console.print(line)


def _write(report: CompileReport, path: Path) -> None:
    from portrt.errors import SaveError

    try:
        with replacing(path) as file:
            file.write(json.dumps(report.to_json(), indent=2).encode() + b"\n")
    except OSError as err:
        raise SaveError(
            f"the report could not be written to {str(path)!r}: {err}",
            "a folder that exists and is writable",
            "correct the path given as report",
        ) from err
