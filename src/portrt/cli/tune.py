"""`portrt tune`: times the engines of a file on this machine, and writes their order into it."""

from __future__ import annotations

import click

from portrt.arguments import GOALS


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--optimize-for", type=click.Choice(GOALS), default="latency", show_default=True, help="Goal."
)
@click.option("--device", default="cpu", show_default=True, help="Device of the inputs.")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Time for measuring.")
@click.option("--trust", "trusts", multiple=True, help="As in `portrt run`; repeatable.")
@click.option("-o", "--output", type=click.Path(), help="Write this file, in place of FILE.")
def command(
    file: str,
    optimize_for: str,
    device: str,
    seconds: float,
    trusts: tuple[str, ...],
    output: str | None,
) -> None:
    """Time the engines of FILE against each other here, and put the best one first.

    No model code is needed. Times are medians of calls in turn, at the opt sizes of each profile,
    each with its ratio to the best. Engines whose results differ from the source's are the last.
    """
    from portrt.files.tune_file import tune
    from portrt.runtime import policy

    with policy(trust=trusts or None):
        found = tune(file, optimize_for, output=output, device=device, seconds=seconds)
    for block in found:
        if block.text:
            click.echo(block.text)
        click.echo(f"{block.name}: {', '.join(block.order)}")
    click.echo(f"wrote {output or file}")
