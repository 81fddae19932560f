"""`portrt inspect`: lists the contents of a file."""

from __future__ import annotations

import json
from typing import Any

import click

from portrt.cli.tables import print_table, size_text
from portrt.files.inspect_file import BlockInfo, ProgramInfo, inspect
from portrt.format.engine_spec import in_parts


@click.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--report", "with_report", is_flag=True, help="Print the nodes in PyTorch, and why.")
def command(file: str, as_json: bool, with_report: bool) -> None:
    """Show the blocks of FILE and the engines stored for each; needs no torch and no GPU."""
    found = inspect(file)
    if with_report:
        _print_report(found, as_json)
        return
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    _print_program(found)


def _print_report(found: ProgramInfo, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(None if found.report is None else found.report.to_json(), indent=2))
    elif found.report is None:
        click.echo("the file has no report: it was compiled by an older portrt")
    else:
        click.echo("\n".join(found.report.lines()))


def _print_program(found: ProgramInfo) -> None:
    click.echo(
        f"{found.path}: {size_text(found.file_bytes)}, weights {size_text(found.weights_bytes)}, "
        f"{len(found.blocks)} block{'' if len(found.blocks) == 1 else 's'}"
    )
    if not found.blocks:
        click.echo("the program calls no engine; it runs in PyTorch")
    for block in found.blocks:
        _print_block(block)


def _print_block(block: BlockInfo) -> None:
    producer = ", ".join(f"{name} {version}" for name, version in sorted(block.producer.items()))
    if block.source_bytes is None:
        contents = "no source" + (f", {block.node_count} operators" if block.node_count else "")
    else:
        contents = f"{block.node_count} operators, source {size_text(block.source_bytes)}"
    click.echo(f"\n{block.name}: {contents}, written by {producer}, format {block.format}")
    for label, specs in (("input", block.inputs), ("output", block.outputs)):
        for spec in specs:
            shape = ", ".join(map(str, spec["shape"]))
            click.echo(f"  {label} {spec['name']}: {spec['dtype']} ({shape})")
    print_table(
        ["engine", "size", "built with", "runs on", "checked"],
        [_engine_row(engine) for engine in block.engines],
    )
    for engine in block.engines:
        names = _bindings(engine["build"], block)
        if names:
            click.echo(f"  in the {engine['backend']} engine {', '.join(names)}")


def _engine_row(engine: Any) -> list[str]:
    build, requires = engine["build"], engine["requires"]
    built = [f"{build.get('library', '?')} {build.get('version', '?')}"]
    built += [f"opset {build['opset']}"] if "opset" in build else []
    built += [str(build["precision"])] if "precision" in build else []
    built += _requested(build)
    built += [str(flag) for flag in build.get("flags", [])]
    built += ["prebuilt"] if build.get("adopted") is True else []
    parts = engine.get("parts")
    if parts is not None:
        built.append(in_parts(len(parts["engines"]), parts["nodes_in_engines"], parts["nodes"]))
    runs = [" or ".join(map(str, requires.get("device", ["any device"])))]
    if requires.get("compute_capabilities"):
        runs.append("compute capability " + ", ".join(map(str, requires["compute_capabilities"])))
    if requires.get("compute_capability_min"):
        runs.append(f"compute capability {requires['compute_capability_min']} or newer")
    runs += _tensorrt(requires) if "tensorrt" in requires else []
    return [
        engine["backend"],
        size_text(engine["bytes"]),
        "; ".join(built),
        "; ".join(runs),
        _checked(engine["check"]),
    ]


def _requested(build: Any) -> list[str]:
    """Name the requested precision, if the engine has another one."""
    requested = build.get("autocast")
    name = requested.get("precision") if isinstance(requested, dict) else None
    return [] if name in (None, build.get("precision")) else [f"{name} requested"]


def _tensorrt(requires: Any) -> list[str]:
    """Describe which TensorRT releases run it, and what they need."""
    if requires.get("version_compatible") is not True:
        return [f"tensorrt {requires['tensorrt']} alone"]
    lean = requires.get("lean_runtime") or "outside"
    found = [f"tensorrt from {requires['tensorrt']}, lean runtime {lean}"]
    return found + (["trust='host-code'"] if requires.get("host_code") else [])


def _bindings(build: Any, block: BlockInfo) -> list[str]:
    """List the binding names of a plan that are not the block's names."""
    bindings = build.get("bindings")
    found = []
    for kind, specs in (("inputs", block.inputs), ("outputs", block.outputs)):
        names = bindings.get(kind) if isinstance(bindings, dict) else None
        if isinstance(names, list) and len(names) == len(specs):
            pairs = zip(specs, map(str, names), strict=True)
            found += [f"{spec['name']} is {name!r}" for spec, name in pairs if spec["name"] != name]
    return found


def _checked(check: Any) -> str:
    """Describe the worst output, or why none was compared.

    From a file, where any JSON may be in this field.
    """
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
        return f"out of tolerance: {', '.join(wrong)}"
    found = [row["max_rel"] for row in rows if isinstance(row.get("max_rel"), (int, float))]
    return f"relative difference {max(found, default=0.0):.1e}"
