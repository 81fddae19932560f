"""`portrt check`: will a file run on a machine, from the file alone."""

from __future__ import annotations

import json
import sys

import click

from portrt.files.check_file import OUTCOMES, FileVerdict, check

_WORDS = {
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
@click.option("--trust", "trusts", multiple=True, help="As `portrt run` has it; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, one item a machine.")
def command(file: str, targets: tuple[str, ...], trusts: tuple[str, ...], as_json: bool) -> None:
    """Say how FILE will run, here or there, and why; needs no torch and no GPU.

    Exit code 0: as an engine; 1: as fallback in PyTorch; 2: not at all. With several machines, that
    of the worst.
    """
    found = [check(file, target, trust=trusts) for target in targets or (None,)]
    if as_json:
        click.echo(json.dumps([item.to_json() for item in found], indent=2))
    else:
        for item in found:
            _print(item)
    sys.exit(max(OUTCOMES.index(item.outcome) for item in found))


def _print(found: FileVerdict) -> None:
    click.echo(f"{found.target}: {_WORDS[found.outcome]}, on {found.device} tensors")
    if not found.blocks:
        click.echo("  no engine is called in this program; it runs in PyTorch")
    for block in found.blocks:
        click.echo(f"  {block.name}: {_WORDS[block.outcome]} ({block.runs_as or 'nothing'})")
        for engine in block.engines:
            click.echo(f"    {engine.backend}: {engine.verdict}")
        click.echo(f"    source: {block.source}")
