"""`portrt bench`: latency and throughput of a compiled file."""

from __future__ import annotations

import json
from typing import Any

import click

from portrt.cli.tables import milliseconds, print_table
from portrt.cli.timing_options import timing_options
from portrt.progress import step_bar


@click.command()
@timing_options
@click.option("--threads", type=int, default=1, show_default=True, help="Concurrent callers.")
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Per measurement.")
@click.option("--rounds", type=int, default=3, show_default=True, help="Processes per candidate.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: str, rounds: int, as_json: bool, **job: Any) -> None:
    """Time calls of FILE and of its source in PyTorch, in new processes, in turn.

    INPUTS as in `portrt run`; without them they are random. Latency is that of one thread,
    throughput that of --threads together. A file of one block is also timed as a bare session of
    ONNX Runtime on its stored engine.
    """
    from portrt.files.bench.measure import bench

    with step_bar("bench") as show:
        found = bench({"path": file, **job}, rounds, show)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    base = found["contenders"]["program"]["median_seconds"]
    rows = []
    for name, item in found["contenders"].items():
        if "reason" in item:
            rows.append([name, f"not run: {item['reason']}", *["-"] * 6])
            continue
        times = [item[key] for key in ("median_seconds", "p90_seconds", "p99_seconds")]
        ran = ", ".join(dict.fromkeys(item["engines"])) or "PyTorch"
        figures = [f"{times[0] / base:.2f}", f"{item['calls_per_second']:.1f}", str(item["calls"])]
        rows.append([name, ran, *map(milliseconds, times), *figures])
    head = ["what", "runs as", "median ms", "p90 ms", "p99 ms", "median over the program's"]
    print_table([*head, f"calls/s with --threads {found['threads']}", "calls timed"], rows)
    click.echo(f"{found['rounds']} processes each, in turn, on {found['machine']}")
