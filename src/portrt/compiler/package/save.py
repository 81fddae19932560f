"""save: a program to a file, whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.compiler.package.torchscript import torchscript_of, write_script
from portrt.errors import PortrtError, SaveError, SettingsError
from portrt.format.archive import CONSTANTS, CONSTANTS_CONFIG, Archive
from portrt.format.archive_writer import SERIALIZATION_ID, ArchiveWriter, OnBytes
from portrt.format.atomic import replacing
from portrt.progress import progress_bar
from portrt.runtime.calls import engine_calls
from portrt.runtime.module import PROGRAM

logger = logging.getLogger(__name__)

OUTPUT_FORMATS = ("exported_program", "torchscript")


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
    if output_format not in OUTPUT_FORMATS:
        raise SettingsError(
            f"output_format is {output_format!r}",
            f"one of {', '.join(map(repr, OUTPUT_FORMATS))}",
            "choose an output_format from the list",
        )
    started = time.perf_counter()
    if output_format == "torchscript":
        script = torchscript_of(exported)
        _write(path, lambda file, bar: write_script(script, file, bar), exported, progress)
    else:
        _refuse_strings(exported)
        _write(path, lambda file, bar: _write_archive(exported, file, bar), exported, progress)
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


def _refuse_strings(program: ExportedProgram) -> None:
    """Raise SaveError for an output that torch writes and does not read."""
    found = [getattr(spec.arg, "value", None) for spec in program.graph_signature.output_specs]
    text = next((value for value in found if isinstance(value, str)), None)
    if text is not None:
        raise SaveError(
            f"the model returns the string {text!r}, and torch {torch.__version__} writes such a "
            "program but does not read it",
            "results that are tensors, numbers, bools or None",
            "return the string outside of the model",
        )


def _write(
    path: str | os.PathLike[str],
    write: Callable[[IO[bytes], OnBytes], None],
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


def _write_archive(program: ExportedProgram, file: IO[bytes], on_bytes: OnBytes) -> None:
    """The bytes of torch.export.save, with the blobs written from where they lie.

    torch would copy each of them first. It writes the program without them here, and they are put
    into their places in its archive.
    """
    names = torch_internals.constant_names(program)
    blobs = {
        names[node.name]: program.constants[names[node.name]]
        for call in engine_calls(program)
        for node in call.args[1]
    }
    with tempfile.TemporaryDirectory(prefix="portrt-save-") as folder:
        path = Path(folder) / "archive.pt2"
        torch.export.save(torch_internals.with_constants(program, _stand_ins(blobs)), path)
        source = Archive(path)
        places = dict(_places(source, blobs))
        writer = ArchiveWriter(file, source.root, on_bytes)
        with path.open("rb") as hollow:
            for name, record in source.records.items():
                if name == CONSTANTS_CONFIG:
                    writer.write(name, _config_with_sizes(source, blobs))
                elif name in places:
                    writer.write(name, blobs[places[name]].detach().cpu().contiguous().numpy())
                elif name == SERIALIZATION_ID:
                    writer.write(name, writer.serialization_id().encode())
                else:
                    writer.copy(name, hollow, record)
        writer.close()


def _stand_ins(blobs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One byte for each blob; blobs that share memory share it here."""
    bytes_of: dict[int, torch.Tensor] = {}
    return {
        name: bytes_of.setdefault(blob.data_ptr(), torch.zeros(1, dtype=torch.uint8))
        for name, blob in blobs.items()
    }


def _places(source: Archive, blobs: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Record -> blob."""
    for name, entry in source.json(CONSTANTS_CONFIG)["config"].items():
        if name in blobs:
            yield CONSTANTS + entry["path_name"], name


def _config_with_sizes(source: Archive, blobs: Mapping[str, torch.Tensor]) -> bytes:
    config = source.json(CONSTANTS_CONFIG)
    for name, blob in blobs.items():
        config["config"][name]["tensor_meta"]["sizes"] = [{"as_int": blob.numel()}]
    return json.dumps(config).encode()


def _byte_size(program: ExportedProgram) -> int:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
