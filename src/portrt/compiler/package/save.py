"""Saving of a program to a file, atomically."""

from __future__ import annotations

import io
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
from portrt.errors import PortrtError, SettingsError
from portrt.format.atomic import Write, replacing
from portrt.format.editor import cannot_write
from portrt.format.file_objects import PathOrFile, to_write
from portrt.progress import progress_bar
from portrt.runtime.calls import manifests_of
from portrt.runtime.load import load_bytes
from portrt.runtime.module import PROGRAM
from portrt.runtime.new_weights.program import with_state_of

logger = logging.getLogger(__name__)

# Output format -> function that returns the writer of a program, or raises.
_WRITERS: Mapping[str, Callable[[ExportedProgram], Write]] = {
    "exported_program": exported_program_writer,
    "torchscript": torchscript_writer,
}


def save(
    program: ExportedProgram | torch.nn.Module,
    path: PathOrFile,
    *,
    output_format: str = "exported_program",
    progress: bool | None = None,
) -> None:
    """Write a program to a file. An existing file is replaced atomically.

    Args:
        program: A compiled program, or the module that `compile` returned.
        path: Path of the file, by convention *.pt2 (or *.ts for TorchScript); or a binary file
            object such as `io.BytesIO`, which is written to when the file is complete.
        output_format: "exported_program" for the format of `torch.export.save`; "torchscript" for
            `torch.jit.load`: the script takes positional tensors, followed by keyword arguments in
            the order of the exported signature.
        progress: Show a progress bar on standard error; None shows it for large files if standard
            error is a terminal.

    Raises:
        SettingsError: The format is unknown, or cannot represent the program.
        SaveError: The file cannot be written, with its cause chained; or torch could not read it,
            because the model returns a string.
    """
    if not isinstance(path, (str, os.PathLike)):
        with to_write(path) as file:
            save(program, file, output_format=output_format, progress=progress)
        return
    exported = program_of(program)
    one_of("output_format", output_format, tuple(_WRITERS))
    started = time.perf_counter()
    _write(path, _WRITERS[output_format](exported), exported, progress)
    size = os.path.getsize(path)
    logger.info("saved %d bytes to %s in %.2f s", size, path, time.perf_counter() - started)


def pickled(module: torch.nn.Module) -> tuple[Callable[[bytes], torch.nn.Module], tuple[bytes]]:
    """Return what `pickle` calls to make a compiled module again, and with what: a file's bytes."""
    file = io.BytesIO()
    save(module, file, progress=False)
    return load_bytes, (file.getvalue(),)


def compiled_program(model: object) -> ExportedProgram | None:
    """Return the program of a compiled module or program; None for any other model."""
    if isinstance(model, torch.fx.GraphModule):
        model = model.meta.get(PROGRAM)
    if not isinstance(model, ExportedProgram):
        return None
    own = any(name.startswith("portrt_") for name in model.constants)
    return model if own and manifests_of(model) else None


def program_of(program: ExportedProgram | torch.nn.Module) -> ExportedProgram:
    """Return a program, or that of a module returned by `compile`, with its buffers as they are.

    Raises:
        SettingsError: The argument is neither.
    """
    if isinstance(program, torch.fx.GraphModule):
        module, program = program, program.meta.get(PROGRAM, program)
        if isinstance(program, ExportedProgram):
            program = with_state_of(program, module)
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
        raise cannot_write(target, total, err) from err


def _byte_size(program: ExportedProgram) -> int:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
