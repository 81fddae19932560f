"""Editor of a file's program as JSON. Imports no torch and deserializes nothing.

An engine call is stored in four places of the archive: its node (the manifest and the list of
blobs), the graph's inputs with their sizes, the signature, and the list of constants.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portrt.errors import PackageError, PortrtError, SaveError
from portrt.format import manifest as manifests
from portrt.format.archive import (
    CONSTANTS,
    CONSTANTS_CONFIG,
    MODEL,
    OPERATOR,
    Archive,
    Record,
    engine_calls,
    graph_nodes,
)
from portrt.format.archive_writer import SERIALIZATION_ID, replacing_archive
from portrt.format.manifest import Manifest
from portrt.format.program_check import check_form
from portrt.progress import progress_bar

_GETITEM = "_operator.getitem"


@dataclass
class CallEditor:
    """One engine call: its manifest as plain values, and its blobs by their names in the graph.

    Attributes:
        entry: The manifest; its "blob_count" is replaced by the length of `blobs` when written.
        blobs: Graph name of each blob.
        records: Graph name -> record of each blob that the file had.
        node: The call in the graph's JSON.
    """

    entry: dict[str, Any]
    blobs: list[str]
    records: Mapping[str, Record]
    node: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the name of the block."""
        return str(self.entry["name"])

    def record(self, blob: Mapping[str, Any]) -> Record:
        """Return the record of a blob in the file."""
        return self.records[self.blobs[blob["blob"]]]

    def stored_blobs(self) -> list[Record]:
        """Return the record of each blob, in order; no blob may have been added."""
        return [self.records[name] for name in self.blobs]

    def text(self) -> str:
        """Return the current text of the manifest."""
        return manifests.encode({**self.entry, "blob_count": len(self.blobs)})

    def manifest(self) -> Manifest:
        """Return the current manifest, checked."""
        return manifests.decode(self.text())

    def blob_entries(self) -> Iterator[dict[str, Any]]:
        """Yield the manifest's entry of every blob."""
        entries = [self.entry["weights"], self.entry["source"]]
        for engine in self.entry["engines"]:
            entries += [engine["data"], *(part["data"] for part in _parts(engine))]
        yield from (blob for blob in entries if blob is not None)

    def keep_engines(self, kept: Iterable[dict[str, Any]]) -> None:
        """Remove all engines except these."""
        self.entry["engines"] = list(kept)
        if self.entry["format"] == 3:
            self.entry["format"] = manifests.oldest_version(self.entry)
        self._renumber()

    def drop_source(self) -> None:
        """Remove the source, and with it the names of the weights that it took."""
        self.entry["source"] = None
        self.entry["source_weights"] = []
        self._renumber()

    def add_engine(self, engine: Mapping[str, Any], blobs: Iterable[str], *, first: bool) -> None:
        """Add an engine, after the others or before them.

        Args:
            engine: Its entry; the indices of its blobs follow those of the call.
            blobs: The graph names of its new blobs.
            first: Whether it is preferred to the others.
        """
        self.blobs += blobs
        self.entry["engines"].insert(0 if first else len(self.entry["engines"]), dict(engine))
        if engine.get("parts") is not None:
            self.entry["format"] = max(self.entry["format"], 3)

    def _renumber(self) -> None:
        """Remove the weights if nothing takes them any more, and renumber the remaining blobs."""
        engines = self.entry["engines"]
        takes = self.entry["source_weights"] or any(map(_takes_weights, engines))
        if self.entry["source"] is None and not takes:
            self.entry["weights"] = None
        before = self.blobs
        entries = sorted(self.blob_entries(), key=lambda blob: int(blob["blob"]))
        self.blobs = [before[blob["blob"]] for blob in entries]
        for index, blob in enumerate(entries):
            blob["blob"] = index


class ProgramEditor:
    """A program that is being edited.

    Args:
        path: Path of the file, which is never modified.

    Raises:
        LoadError: The file is not a torch.export archive, or is damaged.
        PackageError: A manifest in it is malformed.
    """

    def __init__(self, path: str | Path) -> None:
        self.archive = Archive(path)
        self._model = self.archive.json(MODEL)
        checked = engine_calls(self.archive, self._model)
        self._config = self.archive.json(CONSTANTS_CONFIG)
        check_form(self.archive, self._model, self._config)
        self._module = self._model["graph_module"]
        self._graph = self._module["graph"]
        nodes = [node for node, _ in graph_nodes(self._graph) if node["target"] == OPERATOR]
        self.calls = [
            _call(node, call.text, call.blobs) for node, call in zip(nodes, checked, strict=True)
        ]
        if not self.calls:
            raise PackageError(
                f"{str(path)!r} calls no engine: it runs in PyTorch as a whole",
                "a file that portrt.compile made blocks in",
                "compile the model with portrt",
            )
        self._new: dict[str, bytes] = {}  # name of a record -> its bytes

    @property
    def is_one_block(self) -> bool:
        """Return whether a single engine call is all that the program does."""
        targets = [node["target"] for node in self._graph["nodes"]]
        return targets.count(OPERATOR) == 1 and {*targets} <= {OPERATOR, _GETITEM}

    def call(self, name: str) -> CallEditor:
        """Return the call of a block.

        Raises:
            PackageError: There is no block of that name.
        """
        for call in self.calls:
            if call.name == name:
                return call
        known = ", ".join(call.name for call in self.calls)
        raise PackageError(f"there is no block {name!r}", f"one of {known}", "correct the name")

    def check_editable(self) -> None:
        """Raise PackageError if engines are called inside branches of control flow."""
        own = sum(node["target"] == OPERATOR for node in self._graph["nodes"])
        if own != len(self.calls):
            raise PackageError(
                f"{str(self.archive.path)!r} has engines inside branches of its control flow",
                "a file whose engines are all called by the program's own graph",
                "compile the model again with what is to be in the file",
            )

    def add_blob(self, call: CallEditor, label: str, data: bytes) -> str:
        """Add a constant to the program, and return its name in the graph."""
        taken = {*self._graph["tensor_values"], *self._config["config"], *self.archive.records}
        constant = _free(f"portrt_{call.name}_{label}", taken, prefix="c_")
        graph_name = f"c_{constant}"
        record = _free("tensor", {name.removeprefix(CONSTANTS) for name in (*taken, *self._new)})
        like = call.blobs[0] if call.blobs else self.calls[0].blobs[0]
        self._graph["tensor_values"][graph_name] = _sized(
            self._graph["tensor_values"][like], len(data)
        )
        payload = copy.deepcopy(self._config["config"][self._constant_names()[like]])
        payload["path_name"] = record
        payload["tensor_meta"] = _sized(payload["tensor_meta"], len(data))
        self._config["config"][constant] = payload
        self._graph["inputs"].insert(0, {"as_tensor": {"name": graph_name}})
        spec = {"arg": {"name": graph_name}, "tensor_constant_name": constant}
        self._module["signature"]["input_specs"].insert(0, {"tensor_constant": spec})
        self._new[CONSTANTS + record] = data
        return graph_name

    def write(self, target: Path, progress: bool | None) -> None:
        """Write the edited program; an existing file at `target` is replaced atomically.

        Raises:
            PackageError: An edit produced an invalid manifest, which is a bug in portrt.
            SaveError: The file cannot be written.
        """
        self.check_editable()
        for call in self.calls:
            _store(call)
        dropped = self._drop_unused()
        archive, new = self.archive, dict(self._new)
        texts = {MODEL: self._model, CONSTANTS_CONFIG: self._config}
        new |= {name: json.dumps(value, allow_nan=False).encode() for name, value in texts.items()}
        names = [name for name in archive.records if name not in dropped and name not in self._new]
        place = names.index(CONSTANTS_CONFIG)
        names[place:place] = self._new
        total = sum(archive.records[name].size for name in names if name not in new)
        try:
            with (
                archive.path.open("rb") as source,
                progress_bar(f"writing {target.name}", total, progress) as bar,
                replacing_archive(target, archive.root, bar) as writer,
            ):
                for name in names:
                    if name == SERIALIZATION_ID:
                        writer.write(name, writer.serialization_id().encode())
                    elif name in new:
                        writer.write(name, new[name])
                    else:
                        writer.copy(name, source, archive.records[name])
        except PortrtError:
            raise
        except OSError as err:
            raise cannot_write(target, total, err) from err

    def _constant_names(self) -> dict[str, str]:
        """Return the graph name of each tensor constant -> its name in the program."""
        specs = (spec.get("tensor_constant") for spec in self._module["signature"]["input_specs"])
        return {spec["arg"]["name"]: spec["tensor_constant_name"] for spec in specs if spec}

    def _drop_unused(self) -> set[str]:
        """Remove the blobs that no call has any more, and return the names of their records."""
        names = self._constant_names()
        used = set(_names_in([self._graph["nodes"], self._graph["outputs"]]))
        had = {blob for call in self.calls for blob in call.records}
        unused = {blob for blob in had if blob not in used}
        graph, signature, config = self._graph, self._module["signature"], self._config["config"]
        keep = [
            index
            for index, item in enumerate(graph["inputs"])
            if item.get("as_tensor", {}).get("name") not in unused
        ]
        graph["inputs"] = [graph["inputs"][index] for index in keep]
        signature["input_specs"] = [signature["input_specs"][index] for index in keep]
        paths = set()
        for blob in unused:
            graph["tensor_values"].pop(blob, None)
            payload = config.pop(names[blob], None)  # None: it has two names in the graph
            paths |= {payload["path_name"]} if payload else set()
        still = {payload["path_name"] for payload in config.values()}
        return {CONSTANTS + path for path in paths - still}


def cannot_write(target: Path, size: int, err: Exception) -> SaveError:
    """Return the error for a file that could not be written."""
    return SaveError(
        f"{str(target)!r} could not be written: {err}",
        f"an existing, writable folder with about {size} bytes free",
        "correct the path or free disk space; an existing file is unchanged",
    )


def _call(node: dict[str, Any], text: str, records: tuple[Record, ...]) -> CallEditor:
    values = {item["name"]: item["arg"] for item in node["inputs"]}
    blobs = [blob["name"] for blob in values["blobs"].get("as_tensors") or []]
    return CallEditor(manifests.parse(text), blobs, dict(zip(blobs, records, strict=True)), node)


def _parts(engine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the engines of an engine in parts; empty for one of the whole block."""
    parts = engine.get("parts")
    return [] if parts is None else list(parts["engines"])


def _takes_weights(engine: Mapping[str, Any]) -> bool:
    return any(item["weights"] for item in (engine, *_parts(engine)))


def _store(call: CallEditor) -> None:
    """Store manifest and blobs in the node."""
    call.manifest()  # checks that the result can be read
    text = call.text()
    for item in call.node["inputs"]:
        if item["name"] == "manifest":
            item["arg"] = {"as_string": text}
        elif item["name"] == "blobs":
            item["arg"] = {"as_tensors": [{"name": name} for name in call.blobs]}


def _sized(meta: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Copy the description of a blob, with another number of bytes."""
    return {**copy.deepcopy(dict(meta)), "sizes": [{"as_int": count}]}


def _free(name: str, taken: set[str], prefix: str = "") -> str:
    """Return the first of `name_0`, `name_1`, ... that is free, with and without the prefix."""
    index = 0
    while f"{name}_{index}" in taken or f"{prefix}{name}_{index}" in taken:
        index += 1
    return f"{name}_{index}"


def _names_in(value: Any) -> Iterator[str]:
    """Yield every "name" within a JSON value."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield value["name"]
        for item in value.values():
            yield from _names_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names_in(item)
