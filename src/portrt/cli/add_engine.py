"""`portrt add-engine`: builds one more engine for every block of a compiled file."""

from __future__ import annotations

from typing import Any

import click

from portrt.cli.compile_flags import flag
from portrt.compiler.options.settings import CHECKS


@click.command()
@click.argument("file", type=click.Path())
@click.option("--engine", required=True, help="The backend to build for.")
@flag(
    "target_compute_capabilities",
    "--target",
    "targets",
    multiple=True,
    note="Repeatable, or with commas.",
)
@click.option("--first", is_flag=True, help="Prefer it to the engines in the file.")
@flag("optimization_level", type=int)
@flag("builder_python")
@flag("check", type=click.Choice(CHECKS))
@click.option("-o", "--output", type=click.Path(), help="Write this file, in place of FILE.")
def command(
    file: str,
    engine: str,
    targets: tuple[str, ...],
    first: bool,
    output: str | None,
    **options: Any,
) -> None:
    """Build an engine for every block of FILE from the sources in it; no model code is needed."""
    from portrt.files.insert_engine import add_engine
    from portrt.files.inspect_file import inspect

    chosen = {name: value for name, value in options.items() if value is not None}
    listed = [part for target in targets for part in target.split(",") if part]
    if listed:
        chosen["target_compute_capabilities"] = listed
    add_engine(file, engine, output=output, first=first, **chosen)
    target = output or file
    blocks = inspect(target).blocks
    click.echo(f"wrote {target}: {engine} added to {len(blocks)} block(s)")
