"""extract: writes an engine, an ONNX model, a source or the weights to a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from portrt.errors import PackageError, PortrtError, SettingsError
from portrt.format.archive import Record
from portrt.format.atomic import copy_bytes, replacing
from portrt.format.editor import CallEditor, ProgramEditor, cannot_write
from portrt.format.memory_map import map_file
from portrt.format.onnx_wire import WEIGHTS_LOCATION, external_fault

KINDS = ("plan", "onnx", "source", "weights")

_CHUNK_BYTES = 8 << 20


def extract(
    path: str | os.PathLike[str],
    what: str,
    output: str | os.PathLike[str],
    *,
    engine: str | None = None,
    block: str | None = None,
    part: str | None = None,
) -> None:
    """Write one part of a compiled file to another file, in a format that other tools read.

    Args:
        path: The file.
        what: "plan": an engine, as its library serialized it. "onnx": the block as an
            ONNX model, with its weights beside it in `output` + ".safetensors"; the stored
            onnxruntime engine where there is one, else translated from the source. "source": the
            block as a torch.export archive, which takes its inputs and then its weights. "weights":
            the weights of all blocks, as a safetensors file.
        output: The file to write, atomically.
        engine: Backend of the plan; needed if a block has several engines.
        block: Name of the block; needed if the file has several, except for weights.
        part: Name of the part; needed for the plan of an engine in parts.

    Raises:
        LoadError: The file is no torch.export archive, or damaged.
        PackageError: The part is not in the file, or damaged.
        SettingsError: `what` is unknown, or the block, engine or part is ambiguous.
        ConvertError: The source has no ONNX form.
        SaveError: The output cannot be written; what was there is unchanged.
    """
    if what not in KINDS:
        raise SettingsError(
            f"what is {what!r}", f"one of {', '.join(map(repr, KINDS))}", "choose one of them"
        )
    draft = ProgramEditor(os.fspath(path))
    target = Path(output)
    if what == "weights":
        _write_weights(draft, *_weights(draft, block), target)
        return
    call = _call(draft, block)
    if what == "plan":
        entry = _part(call, _engine(call, engine), part)
        label = f"engine {entry['backend']} of {call.name}"
        _write_blob(draft, call, entry["data"], label, target)
    elif what == "source":
        if call.entry["source"] is None:
            raise _missing(f"no source of {call.name}: it was stripped")
        _write_blob(draft, call, call.entry["source"], f"the source of {call.name}", target)
    else:
        _write_onnx(draft, call, target)


def _call(draft: ProgramEditor, block: str | None) -> CallEditor:
    if block is not None:
        return draft.call(block)
    if len(draft.calls) > 1:
        raise SettingsError(
            f"the file has {len(draft.calls)} blocks",
            f"one of {', '.join(call.name for call in draft.calls)}",
            "name the block: block=... (--block)",
        )
    return draft.calls[0]


def _engine(call: CallEditor, backend: str | None) -> dict[str, Any]:
    engines = call.entry["engines"]
    found = [item for item in engines if backend in (None, item["backend"])]
    stored = ", ".join(item["backend"] for item in engines) or "none"
    if not found:
        raise _missing(f"no engine {backend or ''} of {call.name}; stored are: {stored}")
    if backend is None and len(found) > 1:
        raise SettingsError(
            f"{call.name} has several engines: {stored}", "one of them", "name it: engine=..."
        )
    engine: dict[str, Any] = found[0]  # of several of one backend, the preferred one
    return engine


def _part(call: CallEditor, engine: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Return the engine, or the part of this name of an engine in parts."""
    parts = engine.get("parts")
    if parts is None and name is None:
        return engine
    found: dict[str, Any] = {} if parts is None else {it["name"]: it for it in parts["engines"]}
    stored = ", ".join(found) or "none"
    label = f"the {engine['backend']} engine of {call.name}"
    if name is None:
        raise SettingsError(f"{label} is in parts: {stored}", "one of them", "name it: part=...")
    if name not in found:
        raise _missing(f"no part {name!r} of {label}; stored are: {stored}")
    chosen: dict[str, Any] = found[name]
    return chosen


def _weights(draft: ProgramEditor, block: str | None) -> tuple[CallEditor, dict[str, Any]]:
    calls = draft.calls if block is None else [draft.call(block)]
    held = [call for call in calls if call.entry["weights"] is not None]
    if not held:
        raise _missing("no weights: no block in it takes any from outside")
    if len({call.record(call.entry["weights"]) for call in held}) > 1:
        return _call(draft, block), {}  # an error that lists the blocks
    return held[0], held[0].entry["weights"]


def _missing(fact: str) -> PackageError:
    return PackageError(
        f"the file has {fact}",
        "a file that holds what is to be extracted",
        "see `portrt inspect`, or compile the model again",
    )


def _write_blob(
    draft: ProgramEditor, call: CallEditor, blob: Mapping[str, Any], label: str, target: Path
) -> None:
    """Check the digest of a blob, and copy it."""
    record = call.record(blob)
    _check_digest(draft, record, blob, label)
    try:
        with draft.archive.path.open("rb") as source, replacing(target) as file:
            copy_bytes(source, record.offset, record.size, file)
    except OSError as err:
        raise cannot_write(target, record.size, err) from err


def _write_weights(
    draft: ProgramEditor, call: CallEditor, blob: Mapping[str, Any], target: Path
) -> None:
    """Write the weights image, without the record of the state dict."""
    from portrt.runtime.new_weights.record import RECORD
    from portrt.runtime.stored_block import StoredBlock

    mapped = map_file(str(draft.archive.path))
    image = StoredBlock.mapped(call.manifest(), call.stored_blobs(), mapped).image
    assert image is not None  # the caller found it
    found = _without(image.numpy(), RECORD)
    if found is None:
        _write_blob(draft, call, blob, "the weights image", target)
        return
    _check_digest(draft, call.record(blob), blob, "the weights image")
    try:
        with replacing(target) as file:
            for part in found:
                file.write(part)
    except OSError as err:
        raise cannot_write(target, sum(map(len, found)), err) from err


def _without(image: Any, name: str) -> tuple[bytes, Any] | None:
    """Return header and data of a safetensors image without its last tensor; None for another one.

    All others stay where they are, because an extracted ONNX model refers to places in the file:
    the header is filled up with spaces.
    """
    length = int.from_bytes(image[:8].tobytes(), "little")
    header, data = json.loads(image[8 : 8 + length].tobytes()), image[8 + length :]
    begin, end = header.pop(name, {}).get("data_offsets", (0, 0))
    if end != len(data):
        return None
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return length.to_bytes(8, "little") + text.ljust(length), data[:begin]


def _check_digest(
    draft: ProgramEditor, record: Record, blob: Mapping[str, Any], label: str
) -> None:
    digest = hashlib.sha256()
    with draft.archive.path.open("rb") as file:
        file.seek(record.offset)
        left = record.size
        while left and (part := file.read(min(_CHUNK_BYTES, left))):
            digest.update(part)
            left -= len(part)
    if digest.hexdigest() != blob["sha256"]:
        raise PackageError(
            f"{label} is damaged: its SHA-256 is {digest.hexdigest()[:16]}...",
            f"{blob['sha256'][:16]}..., as in its manifest",
            "get the file again from where it was made, or compile the model again",
        )


def _write_onnx(draft: ProgramEditor, call: CallEditor, target: Path) -> None:
    """Write the weights first, so that a written model is complete."""
    model, takes_weights = _onnx_model(draft, call, f"{target.name}.safetensors")
    if takes_weights:
        beside = target.with_name(f"{target.name}.safetensors")
        _write_blob(draft, call, call.entry["weights"], "the weights image", beside)
    try:
        with replacing(target) as file:
            file.write(model)
    except PortrtError:
        raise
    except OSError as err:
        raise cannot_write(target, len(model), err) from err


def _onnx_model(draft: ProgramEditor, call: CallEditor, location: str) -> tuple[bytes, bool]:
    """Make the model with its weights at `location`; return also whether it has any there."""
    import onnx

    data, weights = _onnx_bytes(draft, call)
    fault = external_fault(data, weights)
    try:
        model = onnx.load_from_string(data)
    except Exception as err:  # protobuf's, of which onnx has its own copy or not
        fault = fault or f"is no ONNX model: {err}"
    if fault:
        raise PackageError(
            f"the engine of {call.name} {fault}",
            f"an ONNX model with weights at {WEIGHTS_LOCATION!r} alone",
            "get the file again from where it was made",
        )
    takes_weights = False
    for tensor in model.graph.initializer:
        for item in tensor.external_data:
            if item.key == "location":
                item.value, takes_weights = location, True
    return model.SerializeToString(), takes_weights


def _onnx_bytes(draft: ProgramEditor, call: CallEditor) -> tuple[bytes, Sequence[str]]:
    """Return the model, and the names of the weights that it takes from the weights image."""
    for engine in call.entry["engines"]:
        if engine["backend"] == "onnxruntime" and engine.get("parts") is None:
            record = call.record(engine["data"])
            _check_digest(draft, record, engine["data"], f"engine onnxruntime of {call.name}")
            with draft.archive.path.open("rb") as file:
                file.seek(record.offset)
                return file.read(record.size), engine["weights"]
    if call.entry["source"] is None:
        raise _missing(f"neither an onnxruntime engine nor the source of {call.name}")
    from portrt import torch_internals
    from portrt.compiler.building.source_plan import plan_from_source
    from portrt.compiler.convert import NEWEST_OPSET, onnx_from_block
    from portrt.runtime.stored_block import StoredBlock
    from portrt.weights import WeightsImage

    mapped = map_file(str(draft.archive.path))
    stored = StoredBlock.mapped(call.manifest(), call.stored_blobs(), mapped)
    plan = plan_from_source(stored)
    (block,) = plan.blocks
    with torch_internals.without_torch_noise():
        image = WeightsImage(stored.image)
        model = onnx_from_block(block, plan.tensors, image, NEWEST_OPSET)
    return model.data, model.weights
