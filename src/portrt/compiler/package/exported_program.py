"""Writes a program as the file of torch.export.save."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.errors import SaveError
from portrt.format.archive import CONSTANTS, CONSTANTS_CONFIG, Archive
from portrt.format.archive_writer import SERIALIZATION_ID, ArchiveWriter
from portrt.format.atomic import OnBytes, Write
from portrt.runtime.calls import engine_calls


def exported_program_writer(program: ExportedProgram) -> Write:
    """Check that torch can read the file of a program, and return what writes it.

    Raises:
        SaveError: The model returns a string.
    """
    _refuse_strings(program)
    return lambda file, on_bytes: _write(program, file, on_bytes)


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


def _write(program: ExportedProgram, file: IO[bytes], on_bytes: OnBytes) -> None:
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
