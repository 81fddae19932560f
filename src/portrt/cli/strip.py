"""`portrt strip`: removes engines or sources from a compiled file."""

from __future__ import annotations

from pathlib import Path

import click

from portrt.cli.tables import size_text
from portrt.files.strip_file import strip


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--engine", "engines", multiple=True, help="Remove engines of this backend; repeatable."
)
@click.option("--source", is_flag=True, help="Remove the sources; no fallback is left.")
@click.option("--keep", multiple=True, help="Keep the engines of this backend alone; repeatable.")
@click.option("--force", is_flag=True, help="Allow blocks that nothing can run.")
@click.option("-o", "--output", type=click.Path(), help="Write this file, in place of FILE.")
def command(
    file: str,
    engines: tuple[str, ...],
    source: bool,
    keep: tuple[str, ...],
    force: bool,
    output: str | None,
) -> None:
    """Remove engines, or the sources, from FILE; needs no torch."""
    before = Path(file).stat().st_size if Path(file).exists() else 0
    strip(file, engines, source, keep, output, force=force)
    target = output or file
    now = Path(target).stat().st_size
    click.echo(f"wrote {target}: {size_text(now)}, {size_text(before - now)} less")
