"""`portrt check`: predicts from the file alone whether it runs on a machine."""

from __future__ import annotations

import json
import sys

import click

from portrt.files.check_file import OUTCOMES, FileVerdict, check

_TEXTS = {
    "engine": "runs as an engine",
    "fallback": "runs, but as fallback in PyTorch",
    "cannot": "cannot run",
}


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--for",
    "targets",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="A machine, such as os=linux,arch=x86_64,sm=89,tensorrt_rtx=1.7; repeatable. Without it, "
    "this machine.",
)
@click.option("--trust", "trusts", multiple=True, help="As in `portrt run`; repeatable.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: a list with one item per machine."
)
def command(file: str, targets: tuple[str, ...], trusts: tuple[str, ...], as_json: bool) -> None:
    """Predict how FILE runs on this or another machine, and why; needs no torch or GPU.

    Exit code 0: as an engine; 1: as fallback in PyTorch; 2: not at all. With several machines, the
    worst of them.
    """
    found = [check(file, target, trust=trusts) for target in targets or (None,)]
    if as_json:
        click.echo(json.dumps([item.to_json() for item in found], indent=2))
    else:
        for item in found:
            _print(item)
    sys.exit(max(OUTCOMES.index(item.outcome) for item in found))


def _print(found: FileVerdict) -> None:
    click.echo(f"{found.target}: {_TEXTS[found.outcome]}, on {found.device} tensors")
    if not found.blocks:
        click.echo("  the program calls no engine; it runs in PyTorch")
    for block in found.blocks:
        click.echo(f"  {block.name}: {_TEXTS[block.outcome]} ({block.runs_as or 'nothing'})")
        for engine in block.engines:
            click.echo(f"    {engine.backend}: {engine.verdict}")
        click.echo(f"    source: {block.source}")
