"""`portrt extract`: writes one part of a compiled file to its own file."""

from __future__ import annotations

import click

from portrt.cli.tables import size_text


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--what",
    required=True,
    type=click.Choice(["plan", "onnx", "source", "weights"]),
    help="An engine's bytes, an ONNX model, a torch.export archive, or a safetensors file.",
)
@click.option("--engine", help="Backend of the plan, if a block has several engines.")
@click.option("--block", help="Name of the block, if the file has several.")
@click.option("--part", help="Name of the part, of a plan that is in parts.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
def command(
    file: str, what: str, engine: str | None, block: str | None, part: str | None, output: str
) -> None:
    """Write a plan, an ONNX model, the source or the weights of FILE to another file."""
    from pathlib import Path

    from portrt.files.extract_part import extract

    extract(file, what, output, engine=engine, block=block, part=part)
    click.echo(f"wrote {output}: {size_text(Path(output).stat().st_size)}")
