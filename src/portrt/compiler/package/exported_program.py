"""Writer of programs in the format of torch.export.save."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.errors import SaveError
from portrt.format.archive import CONSTANTS, CONSTANTS_CONFIG, Archive
from portrt.format.archive_writer import SERIALIZATION_ID, ArchiveWriter
from portrt.format.atomic import OnBytes, Write
from portrt.format.temp_file import temporary_folder
from portrt.runtime.calls import engine_calls


def exported_program_writer(program: ExportedProgram) -> Write:
    """Check that torch will be able to read the program, and return a function that writes it.

    Raises:
        SaveError: The model returns a string, which torch writes but does not read.
    """
    _refuse_strings(program)
    return lambda file, on_bytes: _write(program, file, on_bytes)


def _refuse_strings(program: ExportedProgram) -> None:
    """Raise SaveError for a string output, which torch writes but does not read."""
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
    """Write the bytes of torch.export.save without copying the blobs in memory.

    torch would copy each blob. Here torch writes the program with one-byte placeholders, and the
    blobs replace these when its archive is copied.
    """
    names = torch_internals.constant_names(program)
    blobs = {
        names[node.name]: program.constants[names[node.name]]
        for call in engine_calls(program)
        for node in call.args[1]
    }
    with temporary_folder("portrt-save-") as folder:
        path = folder / "archive.pt2"
        stripped = torch_internals.with_constants(program, _stand_ins(blobs))
        torch_internals.save_program(stripped, path)
        source = Archive(path)
        blob_of = dict(_records_of_blobs(source, blobs))
        writer = ArchiveWriter(file, source.root, on_bytes)
        with path.open("rb") as source_file:
            for name, record in source.records.items():
                if name == CONSTANTS_CONFIG:
                    writer.write(name, _config_with_sizes(source, blobs))
                elif name in blob_of:
                    writer.write(name, blobs[blob_of[name]].detach().cpu().contiguous().numpy())
                elif name == SERIALIZATION_ID:
                    writer.write(name, writer.serialization_id().encode())
                else:
                    writer.copy(name, source_file, record)
        writer.close()


def _stand_ins(blobs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a one-byte placeholder for each blob; blobs that share memory share a placeholder."""
    bytes_of: dict[int, torch.Tensor] = {}
    return {
        name: bytes_of.setdefault(blob.data_ptr(), torch.zeros(1, dtype=torch.uint8))
        for name, blob in blobs.items()
    }


def _records_of_blobs(
    source: Archive, blobs: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, str]]:
    """Yield the name of each record that holds a blob, and the name of the blob."""
    for name, entry in source.json(CONSTANTS_CONFIG)["config"].items():
        if name in blobs:
            yield CONSTANTS + entry["path_name"], name


def _config_with_sizes(source: Archive, blobs: Mapping[str, torch.Tensor]) -> bytes:
    config = source.json(CONSTANTS_CONFIG)
    for name, blob in blobs.items():
        config["config"][name]["tensor_meta"]["sizes"] = [{"as_int": blob.numel()}]
    return json.dumps(config).encode()
