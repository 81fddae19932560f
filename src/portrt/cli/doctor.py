"""`portrt doctor`: reports which backends work here."""

from __future__ import annotations

import json

import click

from portrt.cli.tables import print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Report which backends can build and run here; for the others, why not and what to install."""
    from portrt.diagnosis import doctor

    found = doctor()
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    for name, fact in found.facts.items():
        click.echo(f"{name:8} {fact}")
    rows = [
        [item.name, item.builds, *(verdict for verdict in item.runs.values())]
        for item in found.backends
    ]
    print_table(
        ["engine", "builds here", "runs on CPU tensors", "runs on CUDA tensors"],
        [[str(cell) for cell in row] for row in rows],
    )
