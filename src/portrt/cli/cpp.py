"""`portrt cpp`: the C++ runtime, built against the installed torch."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from portrt.cpp.build import build

_PREFIX = click.option(
    "--prefix",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for lib and include; by default one in portrt's cache.",
)


@click.group()
def command() -> None:
    """Build and use the C++ runtime."""


@command.command("build")
@_PREFIX
def build_command(prefix: Path | None) -> None:
    """Build libportrt_runtime.so if needed, and print its path."""
    click.echo(build(prefix).library)


@command.command("flags")
@_PREFIX
@click.option("--without-torch", is_flag=True, help="For a program that uses portrt/program.h.")
def flags_command(prefix: Path | None, without_torch: bool) -> None:
    """Print what compiles and links a C++ program with torch; builds the libraries if needed."""
    made = build(prefix)
    click.echo(shlex.join(made.flags_without_torch if without_torch else made.flags))
