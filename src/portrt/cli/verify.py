"""`portrt verify`: compares the engines of a file with its sources."""

from __future__ import annotations

import json
import sys

import click

from portrt.cli.tables import print_table


@click.command()
@click.argument("file", type=click.Path())
@click.argument("inputs", nargs=-1, type=click.Path(exists=True))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of generated inputs.")
@click.option("--device", default="cpu", show_default=True, help="Device of the inputs.")
@click.option("--trust", "trusts", multiple=True, help="As in `portrt run`; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    file: str,
    inputs: tuple[str, ...],
    seed: int,
    device: str,
    trusts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run every engine of FILE that can run here, and compare it with its source in PyTorch.

    INPUTS as in `portrt run`; without them each block gets random inputs. Exit code 0: no engine
    exceeded its tolerance; 1: one did, or failed.
    """
    from portrt.files.read_inputs import read_inputs
    from portrt.files.verify_engines import verify
    from portrt.graphs.program_inputs import flat_signature
    from portrt.runtime import policy
    from portrt.runtime.load import load

    with policy(trust=trusts or None):
        given = read_inputs(inputs, flat_signature(load(file))) if inputs else None
        found = verify(file, given, device=device, seed=seed)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        sys.exit(not found.ok)
    rows = []
    for block in found.blocks:
        for engine in block.engines:
            for row in engine.outputs:
                cells = [str(row[key]) for key in ("name", "max_abs", "max_rel", "tolerance")]
                rows.append([block.name, engine.backend, *cells, "ok" if row["ok"] else "WORSE"])
            if not engine.outputs:
                state = "FAILED" if engine.ran else "not run"
                rows.append([block.name, engine.backend, *["-"] * 4, f"{state}: {engine.reason}"])
    print_table(
        ["block", "engine", "output", "max abs error", "max rel error", "tolerance", "result"], rows
    )
    if not found.compared:
        click.echo("no engine could be compared", err=True)
    sys.exit(not found.ok)
