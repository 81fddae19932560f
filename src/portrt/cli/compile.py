"""`portrt compile`: compiles a model to a file."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portrt.arguments import FALLBACKS, GOALS
from portrt.cli.compile_flags import flag
from portrt.compiler.options.precision import PRECISIONS
from portrt.errors import SaveError, SettingsError

if TYPE_CHECKING:
    from portrt.compiler.inputs import Input

_HUB = "hf:"  # before a model of transformers
_SPEC = re.compile(r"(?:(?P<name>\w+)=)?(?P<shape>[\d.x]*)(?::(?P<dtype>\w+))?")
_RANGE = re.compile(r"(\d+)(?:\.\.(\d+)\.\.(\d+))?")


@click.command()
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
@flag("engines", "--engine", "engines", multiple=True, help="A backend; repeatable, best first.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    help="[NAME=]SHAPE[:DTYPE] of one argument, in order; a size is N or MIN..OPT..MAX, as in "
    "1..8..64x128:int64.",
)
@click.option("--task", help="Of an hf: model; by default that of the class in its configuration.")
@flag("min_block_size", type=int)
@flag(
    "torch_executed_ops",
    "--torch-executed-op",
    "torch_executed_ops",
    multiple=True,
    note="Repeatable.",
)
@flag("precision", type=click.Choice(PRECISIONS))
@flag("require_full_compilation", is_flag=True)
@flag("target_compute_capabilities", "--target", "targets", multiple=True, note="Repeatable.")
@flag("fallback", type=click.Choice(FALLBACKS))
@flag("optimize_for", type=click.Choice(GOALS))
@flag("optimize_budget", type=float)
@flag("report", type=click.Path(), help="JSON file for what is in engines, what is not, and why.")
@flag("dryrun", is_flag=True)
def command(
    source: str, output: str, inputs: tuple[str, ...], task: str | None, **options: Any
) -> None:
    """Compile SOURCE: a file of torch.export.save, PACKAGE.MODULE:FACTORY, or hf:MODEL.

    The factory is called without arguments and returns a module, a pair (module, args), a triple
    (module, args, kwargs), or an ExportedProgram. Give --input where it returns a module alone.

    hf:MODEL is a model of transformers: a folder that save_pretrained wrote, or a name on the hub.
    It is compiled for batches of 1 to 64, texts of all lengths that it takes, up to 512 tokens, and
    images of its size; --input replaces these.
    """
    import portrt
    from portrt.compiler.package.save import save

    if not options["dryrun"]:
        _check_output(output)
    given = [_input_from_spec(spec) for spec in inputs]
    model, args, kwargs = _model_and_inputs(source, given, task)
    chosen = _chosen(options)
    program = portrt.compile(
        model, arg_inputs=args, kwarg_inputs=kwargs, output_format="exported_program", **chosen
    )
    if not options["dryrun"]:
        save(program, output)
        click.echo(f"wrote {output}")


def _check_output(output: str) -> None:
    """Raise SaveError if a file cannot be written there, before the work."""
    path = Path(output)
    folder = path.parent
    if path.is_dir():
        fact = f"{output!r} is a folder"
    elif not folder.is_dir():
        fact = f"there is no folder {str(folder)!r}"
    elif not os.access(folder, os.W_OK):
        fact = f"the folder {str(folder)!r} is not writable"
    else:
        return
    raise SaveError(fact, "a file in an existing, writable folder", "correct --output")


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    named = {"targets": "target_compute_capabilities"}
    return {
        named.get(name, name): value
        for name, value in options.items()
        if value not in (None, (), False)
    }


def _model_and_inputs(source: str, given: list[Input], task: str | None) -> tuple[Any, Any, Any]:
    import torch

    is_hub = source.startswith(_HUB)
    if task is not None and not is_hub:
        raise SettingsError(
            f"--task {task} was given for {source!r}",
            "--task with hf:MODEL",
            "leave --task out, or write hf: before the model's folder or name",
        )
    if is_hub:
        from portrt.cli.transformers_models import model_and_inputs

        made: Any = model_and_inputs(source.removeprefix(_HUB), task)
    else:
        made = _load_program(source) if Path(source).exists() else _call_factory(source)
    parts = made if isinstance(made, tuple) else (made,)
    if isinstance(parts[0], torch.export.ExportedProgram):
        return parts[0], None, None
    args = given or (parts[1] if len(parts) > 1 else None)
    kwargs = parts[2] if len(parts) > 2 else None
    return parts[0], args, kwargs


def _load_program(source: str) -> Any:
    from portrt.runtime.load import load

    return load(source)


def _call_factory(source: str) -> Any:
    module, _, name = source.partition(":")
    if not name or not re.fullmatch(r"[\w.]+", module):
        raise SettingsError(
            f"{source!r} is neither a file nor PACKAGE.MODULE:FACTORY",
            "a file of torch.export.save, a function such as my_package.models:make, or hf:MODEL",
            "correct the path or the name",
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(import_module(module), name)
        return factory()
    except Exception as err:
        raise SettingsError(
            f"{source} could not be called: {type(err).__name__}: {err}",
            "a function that takes no arguments and returns a model",
            "call it from Python to see where it fails",
        ) from err


def _input_from_spec(spec: str) -> Input:
    """Parse "[NAME=]SHAPE[:DTYPE]".

    Raises:
        SettingsError: The text has another form.
    """
    import torch

    from portrt.compiler.inputs import Input

    found = _SPEC.fullmatch(spec)
    sizes = [_RANGE.fullmatch(part) for part in found["shape"].split("x") if part] if found else []
    dtype = getattr(torch, (found["dtype"] if found else None) or "float32", None)
    if not found or not all(sizes) or not isinstance(dtype, torch.dtype):
        raise SettingsError(
            f"--input {spec!r} cannot be read",
            "[NAME=]SHAPE[:DTYPE], such as 1x3x224x224 or ids=1..8..64x128:int64",
            "separate sizes by x; write a range as MIN..OPT..MAX, and a dtype after the colon",
        )
    bounds = [(s[1], s[2] or s[1], s[3] or s[1]) for s in sizes if s]
    low, opt, high = ([int(b[i]) for b in bounds] for i in range(3))
    return Input(min_shape=low, opt_shape=opt, max_shape=high, dtype=dtype, name=found["name"])
