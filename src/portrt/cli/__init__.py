"""The command line `portrt`. A new command is a module with one click command, and a line below."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module, metadata
from typing import Any

import click

from portrt.errors import PortrtError, first_line

# Imported when called: `portrt inspect` needs no torch, and should not wait for its import.
COMMANDS = {
    "add-engine": "portrt.cli.add_engine",
    "bench": "portrt.cli.bench",
    "check": "portrt.cli.check",
    "cache": "portrt.cli.cache",
    "compile": "portrt.cli.compile",
    "cpp": "portrt.cli.cpp",
    "doctor": "portrt.cli.doctor",
    "extract": "portrt.cli.extract",
    "inspect": "portrt.cli.inspect",
    "profile": "portrt.cli.profile",
    "run": "portrt.cli.run",
    "strip": "portrt.cli.strip",
    "tune": "portrt.cli.tune",
    "verify": "portrt.cli.verify",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return sorted(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  (click's signature)
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            ctx.fail(f"there is no command {args[0]!r}; there are {', '.join(sorted(COMMANDS))}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("portrt"), prog_name="portrt")
@click.option("-v", "--verbose", count=True, help="Log progress; twice for details.")
def cli(verbose: int) -> None:
    """PyTorch models as inference engines that save as ordinary torch.export programs."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("portrt").setLevel(level)


def main() -> None:
    """Run the command line: an error is one message and exit code 2, and no traceback.

    That of an error that portrt did not expect is in the log, see `--verbose`.
    """
    try:
        cli()
    except PortrtError as err:
        click.echo(f"portrt: {err}", err=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(141)  # as of a process that the signal ends
    except Exception as err:
        logging.getLogger("portrt").info("traceback", exc_info=True)
        click.echo(
            f"portrt: {type(err).__name__}: {first_line(err):.300}\n"
            "  Expected: no such error\n"
            "  Do: report it, with what `portrt -v` prints for the same command",
            err=True,
        )
        sys.exit(2)
