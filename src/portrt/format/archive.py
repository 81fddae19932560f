"""Reader of .pt2 archives as zip files: records and engine calls. Imports no torch."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from portrt.errors import LoadError, PackageError
from portrt.format.file_kind import require_file
from portrt.format.manifest import Manifest, check_blob_sizes, decode

OPERATOR = "torch.ops.portrt.execute_engine.default"

MODEL = "models/model.json"
CONSTANTS = "data/constants/"
WEIGHTS = "data/weights/"
CONSTANTS_CONFIG = "data/constants/model_constants_config.json"
WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"

_MAX_RECORDS = 100_000
_MAX_JSON_BYTES = 1 << 30
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., name length, extra length
_PLAN = ("a TensorRT plan", "wrap it with portrt.from_plan, which makes a program of it")
# Ending of a file that is no zip file -> what it is, and what to do with it.
_OTHER_KINDS = {
    ".onnx": ("an ONNX model", "compile the PyTorch model that it was exported from"),
    ".engine": _PLAN,
    ".plan": _PLAN,
    ".trt": _PLAN,
    ".safetensors": ("a file of weights", "load them into the model, and compile that"),
}
_REMEDY = "get the file again from where it was made, or compile the model again"


@dataclass(frozen=True)
class Record:
    """Offset and size of a record in the file, in bytes, and its CRC-32 from the zip directory."""

    offset: int
    size: int
    crc: int


@dataclass(frozen=True)
class EngineCall:
    """One `execute_engine` call in a file.

    Attributes:
        text: Text of the manifest in the graph.
        manifest: The decoded and checked manifest.
        blobs: Record of each blob of the call, in order.
    """

    text: str
    manifest: Manifest
    blobs: tuple[Record, ...]


class Archive:
    """The records of a .pt2 file by name, without the archive's root folder, which is `root`.

    Args:
        path: Path of the file.

    Raises:
        LoadError: The file is missing, not a zip file, truncated, or not a torch.export archive.
    """

    # The file's bytes, once it is mapped: the path may be another file by the time of a later read.
    memory: Any = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.records = self._read_records()
        if self.read("archive_format", max_bytes=16) != b"pt2":
            raise self._error(
                "is not a torch.export archive", "a file that torch.export.save wrote"
            )

    def _open(self) -> IO[bytes]:
        require_file(self.path)
        return self.path.open("rb")

    def _read_records(self) -> dict[str, Record]:
        try:
            with self._open() as file:
                self.size = file.seek(0, io.SEEK_END)
                with zipfile.ZipFile(file) as archive:
                    infos = archive.infolist()
        except FileNotFoundError as err:
            raise LoadError(
                f"there is no file {str(self.path)!r}", "a compiled program", "correct the path"
            ) from err
        except OSError as err:
            raise LoadError(
                f"{str(self.path)!r} cannot be read: {err}", "a readable file", "correct the path"
            ) from err
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as err:
            if kind := _OTHER_KINDS.get(self.path.suffix.lower()):
                raise self._error(f"is {kind[0]}", "a file that portrt wrote", kind[1]) from err
            raise self._error(
                f"is not a zip file, or is truncated: {err}", "a complete .pt2 file"
            ) from err
        self._check_directory(infos)
        found: dict[str, Record] = {}
        self.root = infos[0].filename.partition("/")[0]
        with self._open() as file:
            for info in infos:
                root, _, name = info.filename.partition("/")
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise self._error(f"has the record {name!r:.80} compressed", "stored records")
                if not root or name in found:
                    raise self._error(f"has the record {info.filename!r:.80} twice", "one of each")
                found[name] = self._locate(file, info, name)
        return found

    def _check_directory(self, infos: list[zipfile.ZipInfo]) -> None:
        if len(infos) > _MAX_RECORDS:
            raise self._error(f"has {len(infos)} records", f"at most {_MAX_RECORDS}")
        names = {info.filename.partition("/")[2] for info in infos}
        if "archive_format" not in names:
            script = "constants.pkl" in names
            raise self._error(
                "is a TorchScript file" if script else "is not a torch.export archive",
                "a file that torch.export.save wrote",
                "use torch.jit.load" if script else _REMEDY,
            )
        if min(info.header_offset for info in infos) != 0:
            # A source is stored as a nested archive: if the file is truncated after it, the last
            # zip directory in the file is that of the nested archive.
            raise self._error("does not begin with its first record", "a complete .pt2 file")

    def _locate(self, file: Any, info: zipfile.ZipInfo, name: str) -> Record:
        """Locate a record's data after its local header, whose length is stored in the header."""
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) != _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise self._error(f"has no record {name!r:.80} where it should be", "a complete file")
        _, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        offset = info.header_offset + _LOCAL_HEADER.size + name_size + extra_size
        if offset + info.file_size > self.size:
            raise self._error(f"ends within the record {name!r:.80}", "a complete file")
        return Record(offset, info.file_size, info.CRC)

    def _error(self, fact: str, expected: str, remedy: str = _REMEDY) -> LoadError:
        return LoadError(f"{str(self.path)!r} {fact}", expected, remedy)

    def record(self, name: str) -> Record:
        """Return the record of a name.

        Raises:
            LoadError: There is no record of that name.
        """
        try:
            return self.records[name]
        except KeyError:
            raise self._error(
                f"has no record {name!r:.80}", "a file of torch.export.save"
            ) from None

    def read(self, name: str, max_bytes: int = _MAX_JSON_BYTES) -> bytes:
        """Read the bytes of a record that is at most `max_bytes` long, and check its CRC-32."""
        record = self.record(name)
        if record.size > max_bytes:
            raise self._error(f"has {record.size} bytes in {name!r}", f"at most {max_bytes}")
        if self.memory is not None:
            content = bytes(self.memory[record.offset : record.offset + record.size])
        else:
            with self._open() as file:
                file.seek(record.offset)
                content = file.read(record.size)
        self.check_crc(name, content)
        return content

    def check_crc(self, name: str, content: Any) -> None:
        """Raise LoadError unless these bytes of a record match its CRC-32."""
        if zlib.crc32(content) != self.record(name).crc:
            raise self._error(f"has a damaged record {name!r:.80}", "the bytes that were written")

    def json(self, name: str) -> Any:
        """Parse a record as JSON.

        Raises:
            LoadError: It is not JSON.
        """
        try:
            return json.loads(self.read(name).decode())
        except (ValueError, RecursionError) as err:
            raise self._error(f"has {name!r} that is not JSON: {err}", "JSON") from err


class NestedArchive(Archive):
    """An archive in memory, such as a block's source.

    Args:
        data: Its bytes.
        label: What it is, for messages.

    Raises:
        LoadError: It is not a zip file, truncated, or not a torch.export archive.
    """

    def __init__(self, data: bytes | bytearray, label: str) -> None:
        self.data = data
        super().__init__(label)

    def _open(self) -> IO[bytes]:
        return io.BytesIO(self.data)


def engine_calls(archive: Archive, model: Any = None) -> list[EngineCall]:
    """Return the engine calls of the program in a file; checks manifests and blob sizes.

    Args:
        archive: The file.
        model: Its program as JSON, if it was read before.

    Raises:
        LoadError: The file is damaged.
        PackageError: A manifest is malformed, or does not describe the blobs in the file.
    """
    model = archive.json(MODEL) if model is None else model
    constants = _constant_records(archive)
    try:
        module = model["graph_module"]
        nodes = [item for item in graph_nodes(module["graph"]) if item[0]["target"] == OPERATOR]
        names = _constant_names(module["signature"]["input_specs"]) if nodes else {}
        found = [(*_arguments(node), outer) for node, outer in nodes]
    except (KeyError, TypeError, AttributeError) as err:
        raise LoadError(
            f"{str(archive.path)!r} has a graph of an unknown form: {err!r}",
            "a graph as torch.export writes it",
            "load it with torch.export.load",
        ) from err
    calls = []
    for text, blob_names, outer in found:
        manifest = decode(text)
        try:
            records = tuple(constants[names[outer.get(name, name)]] for name in blob_names)
        except KeyError as err:
            raise PackageError(
                f"a blob of block {manifest.name!r:.80} is not a constant of the program: {err}",
                "a uint8 constant",
                _REMEDY,
            ) from err
        check_blob_sizes(manifest, [record.size for record in records])
        calls.append(EngineCall(text, manifest, records))
    return calls


def graph_nodes(
    graph: Any, outer: Mapping[str, str] | None = None
) -> Iterator[tuple[Any, Mapping[str, str]]]:
    """Iterate over the nodes of a graph in torch.export's JSON and of its nested subgraphs.

    Args:
        graph: The graph's JSON.
        outer: Name in this graph -> name in the program's top graph; None for the top graph.

    Yields:
        Each node, with the name mapping of its graph.
    """
    for node in graph["nodes"]:
        yield node, outer or {}
        inner = [item["arg"]["as_graph"]["graph"] for item in node["inputs"] if _is_graph(item)]
        if not inner:
            continue
        first = next(index for index, item in enumerate(node["inputs"]) if _is_graph(item))
        given = [
            name
            for item in node["inputs"][first:]
            if not _is_graph(item)
            for name in _operand_names(item["arg"])
        ]
        for nested in inner:
            own = [name for item in nested["inputs"] for name in _operand_names(item)]
            known = {
                inside: (outer or {}).get(outside, outside)
                for inside, outside in zip(own, given, strict=False)
                if inside and outside
            }
            yield from graph_nodes(nested, known)


def _is_graph(item: Any) -> bool:
    return "as_graph" in item["arg"]


def _operand_names(argument: Any) -> Iterator[str]:
    """Yield the name of each operand in an argument; "" for a number."""
    for value in argument.values():
        for item in value if isinstance(value, list) else [value]:
            named = next(iter(item.values()), None) if isinstance(item, dict) else None
            found = item.get("name") if isinstance(item, dict) else None
            if found is None and isinstance(named, dict):
                found = named.get("name")
            yield found if isinstance(found, str) else ""


def _constant_records(archive: Archive) -> Mapping[str, Record]:
    """Return the name of each constant -> its record."""
    config = archive.json(CONSTANTS_CONFIG)
    try:
        entries = {name: str(entry["path_name"]) for name, entry in config["config"].items()}
    except (KeyError, TypeError, AttributeError) as err:
        raise LoadError(
            f"{str(archive.path)!r} lists its constants in an unknown form: {err!r}",
            "a list as torch.export writes it",
            "load it with torch.export.load",
        ) from err
    return {name: archive.record(CONSTANTS + path) for name, path in entries.items()}


def _constant_names(specs: Any) -> dict[str, str]:
    """Return the graph name of each tensor constant -> its name in the program."""
    found = {}
    for spec in specs:
        if "tensor_constant" in spec:
            entry = spec["tensor_constant"]
            found[_text(entry["arg"]["name"])] = _text(entry["tensor_constant_name"])
    return found


def _arguments(node: Any) -> tuple[str, list[str]]:
    """Return the manifest and the blob names of a serialized call."""
    values = {item["name"]: item["arg"] for item in node["inputs"]}
    blobs = values["blobs"].get("as_tensors") or []
    return _text(values["manifest"]["as_string"]), [_text(blob["name"]) for blob in blobs]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not a string")
    return value
