"""`portrt strip`: engines or sources out of a compiled file."""

from __future__ import annotations

from pathlib import Path

import click

from portrt.cli.tables import size_text
from portrt.files.strip_file import strip


@click.command()
@click.argument("file", type=click.Path())
@click.option("--engine", "engines", multiple=True, help="Drop the engines of this backend.")
@click.option("--source", is_flag=True, help="Drop the sources: no fallback then.")
@click.option("--keep", multiple=True, help="Drop the engines of all other backends.")
@click.option("--force", is_flag=True, help="Even where nothing is left that can run a block.")
@click.option("-o", "--output", type=click.Path(), help="Write this file, in place of FILE.")
def command(
    file: str,
    engines: tuple[str, ...],
    source: bool,
    keep: tuple[str, ...],
    force: bool,
    output: str | None,
) -> None:
    """Take engines, or the sources, out of FILE; needs no torch."""
    before = Path(file).stat().st_size if Path(file).exists() else 0
    strip(file, engines, source, keep, output, force=force)
    target = output or file
    now = Path(target).stat().st_size
    click.echo(f"wrote {target}: {size_text(now)}, {size_text(before - now)} less")
