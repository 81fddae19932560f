"""save: a program to a file, whole or not at all."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from portrt.arguments import one_of
from portrt.compiler.package.exported_program import exported_program_writer
from portrt.compiler.package.torchscript import torchscript_writer
from portrt.errors import PortrtError, SaveError, SettingsError
from portrt.format.atomic import Write, replacing
from portrt.progress import progress_bar
from portrt.runtime.module import PROGRAM

logger = logging.getLogger(__name__)

# Output format -> makes the function that writes a program in it, or refuses the program.
_WRITERS: Mapping[str, Callable[[ExportedProgram], Write]] = {
    "exported_program": exported_program_writer,
    "torchscript": torchscript_writer,
}


def save(
    program: ExportedProgram | torch.nn.Module,
    path: str | os.PathLike[str],
    *,
    output_format: str = "exported_program",
    progress: bool | None = None,
) -> None:
    """Write a program. What is at `path` is replaced when the new file is complete, or not at all.

    Args:
        program: A compiled program, or the module that `compile` returned.
        path: The file, by custom *.pt2 (or *.ts for TorchScript).
        output_format: "exported_program": the file that `torch.export.save` writes.
            "torchscript": for `torch.jit.load`; called with positional tensors, keyword arguments
            behind them in the order of the exported signature.
        progress: Show a progress bar on standard error; None shows it where that is a terminal and
            the file is large.

    Raises:
        SettingsError: The format is unknown, or the program has no form in it.
        SaveError: The file cannot be written, with its cause chained; or torch could not read it,
            since the model returns a string.
    """
    exported = program_of(program)
    one_of("output_format", output_format, tuple(_WRITERS))
    started = time.perf_counter()
    _write(path, _WRITERS[output_format](exported), exported, progress)
    size = os.path.getsize(path)
    logger.info("saved %d bytes to %s in %.2f s", size, path, time.perf_counter() - started)


def program_of(program: ExportedProgram | torch.nn.Module) -> ExportedProgram:
    """The program itself, also behind the module that `compile` returned.

    Raises:
        SettingsError: It is neither.
    """
    if isinstance(program, torch.fx.GraphModule):
        program = program.meta.get(PROGRAM, program)
    if not isinstance(program, ExportedProgram):
        raise SettingsError(
            f"a {type(program).__module__}.{type(program).__qualname__} was given to save",
            "an ExportedProgram, or a module that portrt.compile returned",
            "compile with output_format='exported_program'",
        )
    return program


def _write(
    path: str | os.PathLike[str],
    write: Write,
    program: ExportedProgram,
    progress: bool | None,
) -> None:
    target = Path(path)
    total = _byte_size(program)
    try:
        with (
            replacing(target) as file,
            progress_bar(f"saving {target.name}", total, progress) as bar,
        ):
            write(file, bar)
    except PortrtError:
        raise
    except Exception as err:
        raise SaveError(
            f"{str(target)!r} could not be written: {err}",
            f"a folder that is there and writable, with about {total} bytes free",
            "correct the path or make room; a file that was there is unchanged",
        ) from err


def _byte_size(program: ExportedProgram) -> int:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
