"""`portrt inspect`: what is in a file."""

from __future__ import annotations

import json
from typing import Any

import click

from portrt.cli.tables import print_table, size_text
from portrt.package.inspect import BlockInfo, ProgramInfo, inspect


@click.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: str, as_json: bool) -> None:
    """Show the blocks of FILE and the engines stored for each; needs no torch and no GPU."""
    found = inspect(file)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    _print_program(found)


def _print_program(found: ProgramInfo) -> None:
    click.echo(
        f"{found.path}: {size_text(found.file_bytes)}, weights {size_text(found.weights_bytes)}, "
        f"{len(found.blocks)} block{'' if len(found.blocks) == 1 else 's'}"
    )
    if not found.blocks:
        click.echo("no engine is called in this program; it runs in PyTorch")
    for block in found.blocks:
        _print_block(block)


def _print_block(block: BlockInfo) -> None:
    producer = ", ".join(f"{name} {version}" for name, version in sorted(block.producer.items()))
    click.echo(
        f"\n{block.name}: {block.node_count} operators, source {size_text(block.source_bytes)}, "
        f"written by {producer}, format {block.format}"
    )
    for label, specs in (("input", block.inputs), ("output", block.outputs)):
        for spec in specs:
            shape = ", ".join(map(str, spec["shape"]))
            click.echo(f"  {label} {spec['name']}: {spec['dtype']} ({shape})")
    print_table(
        ["engine", "size", "built with", "runs on", "checked"],
        [_engine_row(engine) for engine in block.engines],
    )


def _engine_row(engine: Any) -> list[str]:
    build, requires = engine["build"], engine["requires"]
    built = [f"{build.get('library', '?')} {build.get('version', '?')}"]
    built += [f"opset {build['opset']}"] if "opset" in build else []
    built += [str(build["precision"])] if "precision" in build else []
    built += [str(flag) for flag in build.get("flags", [])]
    runs = [" or ".join(map(str, requires.get("device", ["any device"])))]
    if requires.get("compute_capabilities"):
        runs.append("compute capability " + ", ".join(map(str, requires["compute_capabilities"])))
    return [
        engine["backend"],
        size_text(engine["bytes"]),
        "; ".join(built),
        "; ".join(runs),
        _checked(engine["check"]),
    ]


def _checked(check: Any) -> str:
    """The worst output, or why none was compared. From a file: anything can stand in it."""
    if isinstance(check, dict) and isinstance(check.get("simulated"), list):
        return "simulated, " + _worst(check["simulated"])
    if not isinstance(check, dict) or not isinstance(check.get("outputs"), list):
        skipped = check.get("skipped") if isinstance(check, dict) else None
        return f"no: {skipped}" if skipped else "no"
    worst = _worst(check["outputs"])
    return f"yes, {worst}" if worst.startswith("relative") else worst


def _worst(outputs: list[Any]) -> str:
    rows = [row for row in outputs if isinstance(row, dict)]
    wrong = [str(row.get("name")) for row in rows if row.get("ok") is not True]
    if wrong:
        return f"other numbers in {', '.join(wrong)}"
    found = [row["max_rel"] for row in rows if isinstance(row.get("max_rel"), (int, float))]
    return f"relative difference {max(found, default=0.0):.1e}"
