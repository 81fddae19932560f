"""`portrt profile`: times each layer of a compiled file here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portrt.cli.tables import milliseconds, print_table
from portrt.cli.timing_options import timing_options
from portrt.errors import SaveError

if TYPE_CHECKING:
    from portrt.engines.base import LayerTime
    from portrt.files.profiling.result import BlockProfile, FileProfile


@click.command()
@timing_options
@click.option("--calls", type=int, default=30, show_default=True, help="Calls to time.")
@click.option("--top", type=int, default=20, show_default=True, help="Rows of a table; 0: all.")
@click.option(
    "--order",
    type=click.Choice(["time", "execution"]),
    default="time",
    show_default=True,
    help="Order of the rows.",
)
@click.option("--json", "json_path", type=click.Path(), help="Write JSON; - prints only JSON.")
@click.option("--html", "html_path", type=click.Path(), help="Write a page with bars.")
def command(
    file: str,
    inputs: tuple[str, ...],
    engine: str | None,
    shapes: dict[str, list[int]],
    seed: int,
    device: str,
    trust: tuple[str, ...],
    calls: int,
    top: int,
    order: str,
    json_path: str | None,
    html_path: str | None,
) -> None:
    """Time every layer of FILE, and name the nodes of the model that it computes.

    INPUTS as in `portrt run`; without them the inputs are random, of the opt sizes of the engines.
    """
    from portrt.files.profiling.measure import profile
    from portrt.files.read_inputs import read_inputs
    from portrt.graphs.program_inputs import flat_signature
    from portrt.runtime import policy
    from portrt.runtime.load import load

    with policy(trust=trust or None):
        given = read_inputs(inputs, flat_signature(load(file))) if inputs else None
        found = profile(
            file, given, engine=engine, shapes=shapes, device=device, calls=calls, seed=seed
        )
    text = json.dumps(found.to_json(), indent=2)
    if html_path:
        _write(html_path, found.to_html())
    if json_path == "-":
        click.echo(text)
        return
    if json_path:
        _write(json_path, text + "\n")
    _print(found, top, order)
    for path in filter(None, (json_path, html_path)):
        click.echo(f"wrote {path}")


def _print(found: FileProfile, top: int, order: str) -> None:
    for block in found.sections:
        layers = list(enumerate(block.layers, 1))
        if order == "time":
            layers.sort(key=lambda item: -item[1].seconds)
        shown = layers[: top or None]
        title = f"{block.name} ({block.backend}): {len(layers)} layers"
        if len(shown) < len(layers):
            title += f", {len(shown)} of them here"
        rows = [_row(block, number, layer) for number, layer in shown]
        print_table(["#", "layer", "type", "ms", "%", "nodes", "where"], rows, title)
        click.echo(_summary(block))
    click.echo(f"a plain call of the whole program takes {milliseconds(found.call_seconds)} ms")
    click.echo(f"medians of {found.calls} calls on {found.machine['device']}, {_inputs(found)}")


def _row(block: BlockProfile, number: int, layer: LayerTime) -> list[str]:
    share = layer.seconds / block.layers_seconds if block.layers_seconds else 0.0
    lines = [block.nodes[name].line for name in layer.nodes]
    return [
        str(number),
        layer.name,
        layer.kind,
        milliseconds(layer.seconds),
        f"{share:.1%}",
        ", ".join(layer.nodes) or "-",
        block.module_of(layer) or next(filter(None, lines), "-"),
    ]


def _summary(block: BlockProfile) -> str:
    facts = [f"the layers take {milliseconds(block.layers_seconds)} ms"] if block.layers else []
    if block.call_seconds is not None:
        facts.append(
            f"a plain call, with no layer timed, takes {milliseconds(block.call_seconds)} ms"
        )
    if block.layers and block.nodes:
        facts.append(f"{block.mapped:.0%} of the layers' time is mapped to nodes")
    return "; ".join([*facts, block.reason] if block.reason else facts)


def _inputs(found: FileProfile) -> str:
    texts = []
    for item in found.inputs:
        sizes = "x".join(map(str, item["shape"] or [])) or item["dtype"]
        texts.append(f"{item['name']} {sizes}")
    return ", ".join(texts) or "no inputs"


def _write(path: str, text: str) -> None:
    from portrt.format.atomic import replacing

    try:
        with replacing(Path(path)) as file:
            file.write(text.encode())
    except OSError as err:
        raise SaveError(
            f"{path!r} cannot be written: {err}", "a file in an existing folder", "correct the path"
        ) from err
