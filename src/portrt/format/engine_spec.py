"""Engines in a manifest: entries with references to their blobs. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from portrt.errors import brief
from portrt.format import size_expr
from portrt.format.engine_info import EngineInfo
from portrt.format.json_fields import Fields, pointer
from portrt.format.memory_map import sha256_of


@dataclass(frozen=True)
class Blob:
    """Reference to a blob: its index in the call, its size in bytes, and its SHA-256."""

    index: int
    size: int
    sha256: str

    @classmethod
    def of(cls, index: int, data: Any) -> Blob:
        """Describe the blob of this index that holds `data`, a bytes-like object."""
        return cls(index, memoryview(data).nbytes, sha256_of(data))

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        return {"blob": self.index, "size": self.size, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class EngineSpec(EngineInfo):
    """One stored engine.

    Attributes:
        data: Blob with its bytes; with `parts` the program that calls them.
        parts: The engines of an engine in parts, or None for one that takes the whole block.
    """

    data: Blob
    parts: Parts | None = None

    @classmethod
    def of(cls, engine: EngineInfo, data: Blob, parts: Parts | None = None) -> EngineSpec:
        """Return the entry of an engine whose bytes are in the blob `data`."""
        shared = {item.name: getattr(engine, item.name) for item in fields(EngineInfo)}
        return cls(data=data, parts=parts, **shared)

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Return its blob, and those of its parts."""
        inner = () if self.parts is None else self.parts.engines
        return (self.data, *(part.engine.data for part in inner))

    @property
    def in_words(self) -> str:
        """Describe its parts, such as "in 2 parts, with 3 of 40 operators in PyTorch"; or ""."""
        found = self.parts
        if found is None:
            return ""
        return in_parts(len(found.engines), found.nodes_in_engines, found.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        entry = {**super().to_json(), "data": self.data.to_json()}
        return entry if self.parts is None else {**entry, "parts": self.parts.to_json()}


@dataclass(frozen=True)
class Part:
    """One engine of an engine in parts, for the call of its name in the program around it."""

    name: str
    engine: EngineSpec


@dataclass(frozen=True)
class Parts:
    """Engines for parts of a block; PyTorch runs the rest of it.

    Attributes:
        nodes: Number of operator calls in the block.
        nodes_in_engines: Number of these calls that are in the engines.
        engines: The engines, in the order of their calls.
    """

    nodes: int
    nodes_in_engines: int
    engines: tuple[Part, ...]

    def to_json(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        engines = [{**part.engine.to_json(), "name": part.name} for part in self.engines]
        return {
            "nodes": self.nodes,
            "nodes_in_engines": self.nodes_in_engines,
            "engines": engines,
        }


def in_parts(parts: int, nodes_in_engines: int, node_count: int) -> str:
    """Describe an engine in parts in words."""
    left = node_count - nodes_in_engines
    count = "1 part" if parts == 1 else f"{parts} parts"
    return f"in {count}, with {left} of {node_count} operators in PyTorch"


def blob_field(owner: Fields, key: str) -> Blob:
    """Read and check a blob entry."""
    part = owner.part(key)
    digest = part.text("sha256")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise part.bad("sha256", f"is {digest!r:.80}", "64 hexadecimal digits")
    return Blob(part.integer("blob"), part.integer("size"), digest)


def engine_fields(
    item: Any, block: str, path: str, version: int, ranks: Sequence[int] | None
) -> EngineSpec:
    """Read and check the entry of an engine.

    Args:
        item: The entry.
        block: Name of the block, for messages.
        path: JSON pointer of the entry.
        version: Format version of the manifest.
        ranks: Number of dimensions of each input; None for a part, whose inputs are known where it
            is opened: `check_sizes` is for that.
    """
    part = Fields(item, f"an engine of block {block!r:.80}", path)
    backend = part.text("backend")
    part.where = f"engine {backend!r:.80} of block {block!r:.80}"
    data = blob_field(part, "data")
    check = None if part.is_null("check") else part.mapping("check")
    return EngineSpec(
        backend=backend,
        data=data,
        build=part.mapping("build"),
        requires=_requires(part, ranks),
        weights=part.names("weights"),
        check=check,
        parts=None if part.raw.get("parts") is None else _parts(part, block, version),
    )


def _parts(engine: Fields, block: str, version: int) -> Parts:
    if version < 3:
        raise engine.bad("parts", f"is there, in format version {version}", "format version 3")
    own = engine.part("parts")
    found: list[Part] = []
    names: set[str] = set()
    for index, item in enumerate(own.items("engines")):
        path = own.at("engines", index)
        fields_of = Fields(item, f"a part of {engine.where}", path)
        name = fields_of.text("name")
        if name in names:
            raise fields_of.bad("name", f"is {name!r:.80} twice", "one name for each part")
        names.add(name)
        if fields_of.raw.get("parts") is not None:  # before it is read: it may be deep
            raise fields_of.bad("parts", "is there", "an engine that has no parts itself")
        spec = engine_fields(item, block, path, version, None)
        if spec.backend != engine.raw["backend"]:
            wanted = brief(engine.raw["backend"])
            raise fields_of.bad("backend", f"is {brief(spec.backend)}", f"{wanted}, as around it")
        found.append(Part(name, spec))
    if not found:
        raise own.bad("engines", "is empty", "at least one part")
    nodes, inside = own.integer("nodes"), own.integer("nodes_in_engines")
    if inside > nodes:
        raise own.bad("nodes_in_engines", f"is {inside}", f"at most {nodes}, the block's 'nodes'")
    return Parts(nodes, inside, tuple(found))


def _requires(engine: Fields, ranks: Sequence[int] | None) -> Mapping[str, Any]:
    """Check the types of the requirements, which backends read without further checks."""
    engine.mapping("requires")
    part = engine.part("requires")
    if not part.names("device"):
        raise part.bad("device", "is empty", "a device type")
    for key in ("compute_capabilities", "os", "arch", "cpu_features"):
        if key in part.raw:
            part.names(key)
    for key in ("host_code", "version_compatible"):
        if key in part.raw:
            part.take(key, bool, "true or false")
    versions = ("cuda", "tensorrt", "tensorrt_rtx", "onnxruntime", "torch")
    for key in ("compute_capability_min", *versions):
        if key in part.raw:
            part.text(key)
    if "nonzero_sizes" in part.raw:
        trees = part.items("nonzero_sizes")
        if ranks is not None:
            check_sizes(trees, ranks, part.where, part.at("nonzero_sizes"))
    return dict(part.raw)


def check_sizes(trees: Iterable[Any], ranks: Sequence[int], where: str, path: str = "") -> None:
    """Raise PackageError unless these are expressions over the dimensions of an engine's inputs.

    Args:
        trees: `nonzero_sizes` of its requirements.
        ranks: Number of dimensions of each input.
        where: Description of the engine, for messages.
        path: JSON pointer of the list.
    """
    for index, tree in enumerate(trees):
        size_expr.check(tree, ranks, where, pointer(path, index))


def blobs_of_engines(
    engines: tuple[EngineSpec, ...], path: str = "/engines"
) -> Iterator[tuple[str, Blob, str]]:
    """Yield each blob's label for messages, the blob, and the JSON pointer of its entry."""
    for index, engine in enumerate(engines):
        label = f"engine {engine.backend!r:.80}"
        yield label, engine.data, f"{path}/{index}/data"
        for place, part in enumerate(engine.parts.engines if engine.parts else ()):
            where = f"{path}/{index}/parts/engines/{place}/data"
            yield f"{label} for {part.name!r:.80}", part.engine.data, where
