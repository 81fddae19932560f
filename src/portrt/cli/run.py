"""`portrt run`: runs a compiled file on given or random inputs."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portrt.arguments import FALLBACKS
from portrt.cli.tables import print_table
from portrt.errors import SettingsError
from portrt.files.read_inputs import read_inputs

if TYPE_CHECKING:
    import torch


@click.command()
@click.argument("file", type=click.Path())
@click.argument("inputs", nargs=-1, type=click.Path(exists=True))
@click.option("--random", "use_random", is_flag=True, help="Random inputs from the signature.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@click.option("-o", "--output", type=click.Path(), help="Write the outputs: .npz or .safetensors.")
@click.option("--device", default="cpu", show_default=True, help="Device of the inputs.")
@click.option("--engine", "engines", multiple=True, help="Allow this backend only; repeatable.")
@click.option("--fallback", type=click.Choice(FALLBACKS), help="If no engine can run.")
@click.option("--trust", "trusts", multiple=True, help="Permission: host-code, pickle; repeatable.")
@click.option("--repeat", type=int, default=1, show_default=True, help="Calls to time.")
def command(
    file: str,
    inputs: tuple[str, ...],
    use_random: bool,
    seed: int,
    output: str | None,
    device: str,
    engines: tuple[str, ...],
    fallback: str | None,
    trusts: tuple[str, ...],
    repeat: int,
) -> None:
    """Run FILE on INPUTS: a .npy for each argument in order, or a .npz or .safetensors by name."""
    import torch
    from torch.utils import _pytree as pytree

    from portrt.graphs.program_inputs import call_arguments, flat_signature
    from portrt.runtime import policy, report
    from portrt.runtime.devices import device_by_name
    from portrt.runtime.load import load
    from portrt.runtime.module import module_of
    from portrt.runtime.random_inputs import random_inputs

    if bool(inputs) == use_random:
        raise SettingsError(
            "inputs were given together with --random" if inputs else "no inputs were given",
            "files with inputs, or --random",
            "leave one of them out" if inputs else "give .npy, .npz or .safetensors files",
        )
    where = device_by_name(device)
    program = load(file, trust=trusts or None)
    names = flat_signature(program)
    flat = random_inputs(program, seed) if use_random else read_inputs(inputs, names)
    flat = [item.to(where) if isinstance(item, torch.Tensor) else item for item in flat]
    args, kwargs = call_arguments(program, flat)
    module = module_of(program)
    chosen = policy(fallback=fallback, engines=engines or None, trust=trusts or None)
    with chosen, torch.no_grad():
        results, seconds = [], []
        for _ in range(max(repeat, 1)):
            started = time.perf_counter()
            results = pytree.tree_leaves(module(*args, **kwargs))
            seconds.append(time.perf_counter() - started)
        for block in report(program, where.type):
            click.echo(str(block))
    outputs = {f"output_{i}": r for i, r in enumerate(results) if isinstance(r, torch.Tensor)}
    print_table(["output", "dtype", "shape", "min", "mean", "max"], _rows(outputs))
    later = sorted(seconds[1:])
    click.echo(f"first call {seconds[0] * 1e3:.2f} ms")
    if later:
        click.echo(f"median of {len(later)} more {later[len(later) // 2] * 1e3:.3f} ms")
    if output:
        _write(output, outputs)
        click.echo(f"wrote {output}")


def _rows(outputs: dict[str, torch.Tensor]) -> list[list[str]]:
    rows = []
    for name, value in outputs.items():
        numbers = ["-"] * 3
        if value.numel() and not value.is_complex():
            wide = value.double()
            numbers = [f"{v:.6g}" for v in (wide.min(), wide.mean(), wide.max())]
        dtype = str(value.dtype).removeprefix("torch.")
        rows.append([name, dtype, str(tuple(value.shape)), *numbers])
    return rows


def _write(path: str, outputs: dict[str, torch.Tensor]) -> None:
    import numpy as np
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in outputs.items()}
    if path.endswith(".safetensors"):
        save_file(tensors, path)
    elif path.endswith(".npz"):
        arrays: dict[str, Any] = {}
        for name, value in tensors.items():
            with contextlib.suppress(TypeError):
                arrays[name] = value.numpy()
            if name not in arrays:  # numpy has no bfloat16
                arrays[name] = value.float().numpy()
        np.savez(path, **arrays)
    else:
        raise SettingsError(
            f"--output {Path(path).name!r} has an unknown ending",
            ".npz or .safetensors",
            "rename it",
        )
