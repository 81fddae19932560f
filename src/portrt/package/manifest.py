"""The manifest: what one engine call of a program holds, as canonical JSON. No torch in here.

docs/format.md describes every field; `FORMAT_HISTORY` below is its version history.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from portrt.errors import PackageError, brief
from portrt.package import expr

FORMAT = 1
OLDEST_FORMAT = 1
FORMAT_HISTORY = {1: "2026-11-24: first version"}

MAX_MANIFEST_CHARS = 16 << 20
MAX_RANK = 64
MAX_TENSORS = 65536
MAX_TEXT_CHARS = 1024
MAX_DEPTH = 32
DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"),
    *("complex64", "complex128"),
)

_REMEDY = "get the file again from where it was made, or compile the model again"


def encode(manifest: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII, no NaN.

    A reader takes any order of keys and any spaces between them: the canonical form is there so
    that equal contents are equal texts, and checking it would protect nothing.
    """
    return json.dumps(
        manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


@dataclass(frozen=True)
class Blob:
    """Where the bytes of something are: which blob of the call, how long, and its SHA-256."""

    index: int
    size: int
    sha256: str

    @classmethod
    def of(cls, index: int, data: Any) -> dict[str, Any]:
        """The manifest entry of `data`, a bytes-like object."""
        view = memoryview(data)
        digest = hashlib.sha256(view).hexdigest()
        return {"blob": index, "size": view.nbytes, "sha256": digest}


@dataclass(frozen=True)
class Dimension:
    """A size that varies between calls: its range, what engines are tuned for, its symbol."""

    least: int
    best: int
    most: int | None
    symbol: str


@dataclass(frozen=True)
class InputSpec:
    """One input of a block. A size is a number, a Dimension, or a tree over earlier dimensions."""

    name: str
    dtype: str
    shape: tuple[Any, ...]


@dataclass(frozen=True)
class OutputSpec:
    """One output of a block. A size is a number or a tree over the inputs' dimensions."""

    name: str
    dtype: str
    shape: tuple[Any, ...]


@dataclass(frozen=True)
class EngineSpec:
    """One stored engine. The mappings are described in docs/format.md."""

    backend: str
    data: Blob
    build: Mapping[str, Any]
    requires: Mapping[str, Any]
    weights: tuple[str, ...]
    check: Mapping[str, Any] | None


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
        format: Version of the format.
        name: Name of the block.
        producer: Library -> version that wrote it.
        inputs: The block's inputs, in order.
        outputs: The block's outputs, in order.
        weights: The weights image, or None for a block without weights.
        source: The block as a torch.export archive, or None where it was stripped.
        source_weights: Names of the weights that the source takes after its inputs.
        node_count: Operator calls in the source.
        engines: In order of preference.
        policy: What the program asks of the place where it runs: "fallback" and "engines".
        blob_count: How many blobs the call must have.
    """

    format: int
    name: str
    producer: Mapping[str, str]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    weights: Blob | None
    source: Blob | None
    source_weights: tuple[str, ...]
    node_count: int
    engines: tuple[EngineSpec, ...]
    policy: Mapping[str, Any]
    blob_count: int


@lru_cache(maxsize=1024)
def decode(text: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        PackageError: It is not JSON, of an unknown format version, or inconsistent in itself.
    """
    return _decode(parse(text))


def parse(text: str) -> dict[str, Any]:
    """The JSON of a manifest as plain values; only its shape as JSON and its version are checked.

    Raises:
        PackageError: It is too long, not strict JSON (a key that stands twice, NaN, a float beyond
            all bounds), or of a format version that this portrt does not read.
    """
    if len(text) > MAX_MANIFEST_CHARS:
        raise PackageError(
            f"a manifest of {len(text)} characters", f"at most {MAX_MANIFEST_CHARS}", _REMEDY
        )
    try:
        raw = strict_json(text)
    except (ValueError, RecursionError) as err:
        raise PackageError(f"a manifest is not JSON: {err}", "canonical JSON", _REMEDY) from err
    if not isinstance(raw, dict):
        raise PackageError("a manifest is not a JSON object", "a JSON object", _REMEDY)
    version = raw.get("format")
    if type(version) is not int or not OLDEST_FORMAT <= version <= FORMAT:
        raise PackageError(
            f"the program has format version {brief(version)}",
            f"a version from {OLDEST_FORMAT} to {FORMAT}",
            "install a newer portrt" if type(version) is int and version > FORMAT else _REMEDY,
        )
    return raw


def strict_json(text: str) -> Any:
    """The value of a JSON text, in which no key stands twice and every number is finite.

    Raises:
        ValueError: It is not.
        RecursionError: It is nested too deep.
    """
    return json.loads(
        text,
        object_pairs_hook=_unique_keys,
        parse_constant=_no_constant,
        parse_float=_finite,
    )


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is no number that can be kept")
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_deeper_than(tree: Any, levels: int) -> bool:
    """Whether lists and objects lie in each other more than so many times."""
    layer = [tree]
    for _ in range(levels + 1):
        layer = [
            item
            for node in layer
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, (dict, list))
        ]
    return bool(layer)


class _Reader:
    """Takes typed fields out of one JSON object; every error says which object and field."""

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise PackageError(f"{where} is {brief(raw)}", "a JSON object", _REMEDY)
        self.raw = raw
        self.where = where

    def take(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        value = self.raw.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise PackageError(f"{key!r} of {self.where} is {brief(value)}", expected, _REMEDY)
        return value

    def text(self, key: str) -> str:
        """A string that can stand in a message: printable, of one line, not long."""
        value = str(self.take(key, str, "a string"))
        if len(value) > MAX_TEXT_CHARS or not value.isprintable():
            raise PackageError(
                f"{key!r} of {self.where} is {brief(value)}",
                f"printable text of up to {MAX_TEXT_CHARS} characters",
                _REMEDY,
            )
        return value

    def is_null(self, key: str) -> bool:
        """Whether a field that must be there is null."""
        if key not in self.raw:
            raise PackageError(f"{self.where} has no {key!r}", "a value, or null", _REMEDY)
        return self.raw[key] is None

    def whole(self, key: str) -> int:
        value = self.take(key, int, "a whole number from 0")
        if not 0 <= value <= expr.MAX_SIZE:
            raise PackageError(
                f"{key!r} of {self.where} is {brief(value)}", "a whole number from 0", _REMEDY
            )
        return int(value)

    def items(self, key: str) -> list[Any]:
        found = self.take(key, list, "a list")
        if len(found) > MAX_TENSORS:
            raise PackageError(
                f"{key!r} of {self.where} has {len(found)} items", f"up to {MAX_TENSORS}", _REMEDY
            )
        return list(found)

    def mapping(self, key: str) -> Mapping[str, Any]:
        found = dict(self.take(key, dict, "a JSON object"))
        if _is_deeper_than(found, MAX_DEPTH):
            raise PackageError(
                f"{key!r} of {self.where} is nested too deep", f"up to {MAX_DEPTH} levels", _REMEDY
            )
        return found

    def texts(self, key: str) -> Mapping[str, str]:
        part = _Reader(self.mapping(key), f"{key!r} of {self.where}")
        return {name: part.text(name) for name in part.raw}

    def names(self, key: str) -> tuple[str, ...]:
        found = self.items(key)
        if not all(isinstance(name, str) for name in found) or len(set(found)) != len(found):
            raise PackageError(
                f"{key!r} of {self.where} is {brief(found)}", "distinct strings", _REMEDY
            )
        return tuple(found)

    def dtype(self) -> str:
        name = self.text("dtype")
        if name not in DTYPES:
            raise PackageError(
                f"'dtype' of {self.where} is {brief(name)}", f"one of {', '.join(DTYPES)}", _REMEDY
            )
        return name

    def blob(self, key: str) -> Blob:
        part = _Reader(self.take(key, dict, "a JSON object"), f"{key!r} of {self.where}")
        digest = part.text("sha256")
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise PackageError(
                f"'sha256' of {part.where} is {digest!r:.80}", "64 hexadecimal digits", _REMEDY
            )
        return Blob(part.whole("blob"), part.whole("size"), digest)


def _decode(raw: dict[str, Any]) -> Manifest:
    top = _Reader(raw, "the manifest")
    name = top.text("name")
    top.where = f"block {name!r:.80}"
    inputs = _inputs(top)
    ranks = [len(spec.shape) for spec in inputs]
    manifest = Manifest(
        format=raw["format"],
        name=name,
        producer=top.texts("producer"),
        inputs=inputs,
        outputs=_outputs(top, ranks),
        weights=None if top.is_null("weights") else top.blob("weights"),
        source=None if top.is_null("source") else top.blob("source"),
        source_weights=top.names("source_weights"),
        node_count=top.whole("node_count"),
        engines=tuple(_engine(item, name) for item in top.items("engines")),
        policy=_policy(top),
        blob_count=top.whole("blob_count"),
    )
    _check_blobs(manifest)
    return manifest


def _inputs(top: _Reader) -> tuple[InputSpec, ...]:
    found: list[InputSpec] = []
    ranks: list[int] = []
    raw = top.items("inputs")
    if not raw:
        raise PackageError(f"{top.where} has no inputs", "at least one", _REMEDY)
    for item in raw:
        part = _Reader(item, f"an input of {top.where}")
        part.where = f"input {part.text('name')!r:.80} of {top.where}"
        sizes = _sizes(part)
        ranks.append(len(sizes))
        shape = tuple(_input_size(size, ranks, part.where) for size in sizes)
        found.append(InputSpec(part.text("name"), part.dtype(), shape))
    return tuple(found)


def _sizes(part: _Reader) -> list[Any]:
    sizes = part.items("shape")
    if len(sizes) > MAX_RANK:
        raise PackageError(f"{part.where} has rank {len(sizes)}", f"up to {MAX_RANK}", _REMEDY)
    return sizes


def _input_size(size: Any, ranks: list[int], where: str) -> Any:
    if not isinstance(size, dict):
        return _size(size, ranks, where)
    part = _Reader(size, f"a dimension of {where}")
    least, best = part.whole("min"), part.whole("opt")
    most = None if part.is_null("max") else part.whole("max")
    if not (least <= best and (most is None or best <= most)):
        raise PackageError(
            f"a dimension of {where} has min {least}, opt {best}, max {most}",
            "min <= opt <= max",
            _REMEDY,
        )
    return Dimension(least, best, most, part.text("symbol"))


def _size(size: Any, ranks: list[int], where: str) -> Any:
    expr.check(size, ranks, f"a size of {where}")
    if isinstance(size, int) and size < 0:
        raise PackageError(f"a size of {where} is {size!r}", "a whole number from 0", _REMEDY)
    return size


def _outputs(top: _Reader, ranks: list[int]) -> tuple[OutputSpec, ...]:
    found = []
    raw = top.items("outputs")
    if not raw:
        raise PackageError(f"{top.where} has no outputs", "at least one", _REMEDY)
    for item in raw:
        part = _Reader(item, f"an output of {top.where}")
        part.where = f"output {part.text('name')!r:.80} of {top.where}"
        shape = tuple(_size(size, ranks, part.where) for size in _sizes(part))
        found.append(OutputSpec(part.text("name"), part.dtype(), shape))
    return tuple(found)


def _engine(item: Any, block: str) -> EngineSpec:
    part = _Reader(item, f"an engine of block {block!r:.80}")
    backend = part.text("backend")
    part.where = f"engine {backend!r:.80} of block {block!r:.80}"
    data = part.blob("data")
    check = None if part.is_null("check") else part.mapping("check")
    return EngineSpec(
        backend, data, part.mapping("build"), _requires(part), part.names("weights"), check
    )


def _requires(engine: _Reader) -> Mapping[str, Any]:
    """What backends read without asking again what it is."""
    part = _Reader(engine.raw.get("requires"), f"'requires' of {engine.where}")
    if not part.names("device"):
        raise PackageError(f"'device' of {part.where} is empty", "a device type", _REMEDY)
    if "compute_capabilities" in part.raw:
        part.names("compute_capabilities")
    return dict(part.raw)


def _policy(top: _Reader) -> Mapping[str, Any]:
    policy = top.mapping("policy")
    part = _Reader(policy, f"'policy' of {top.where}")
    if policy.get("fallback") not in (None, "eager", "error"):
        raise PackageError(
            f"'fallback' of {part.where} is {brief(policy['fallback'])}",
            "'eager' or 'error'",
            _REMEDY,
        )
    if policy.get("engines") is not None:
        part.names("engines")
    return policy


def _blobs(manifest: Manifest) -> Iterable[tuple[str, Blob]]:
    for label, blob in (("the weights", manifest.weights), ("the source", manifest.source)):
        if blob is not None:
            yield label, blob
    for engine in manifest.engines:
        yield f"engine {engine.backend!r:.80}", engine.data


def _check_blobs(manifest: Manifest) -> None:
    """Every blob that is named exists, is named once, and none is left without a name."""
    owner: dict[int, str] = {}
    for label, blob in _blobs(manifest):
        if blob.index >= manifest.blob_count:
            raise PackageError(
                f"{label} of block {manifest.name!r:.80} is said to be blob {blob.index}",
                f"an index below the {manifest.blob_count} blobs of the call",
                _REMEDY,
            )
        if blob.index in owner:
            raise PackageError(
                f"{label} and {owner[blob.index]} of block {manifest.name!r:.80} are one blob",
                "one blob each",
                _REMEDY,
            )
        owner[blob.index] = label
    if len(owner) != manifest.blob_count:
        raise PackageError(
            f"block {manifest.name!r:.80} describes {len(owner)} of {manifest.blob_count} blobs",
            "a description of each blob",
            _REMEDY,
        )
    needs_weights = manifest.source_weights or any(e.weights for e in manifest.engines)
    if needs_weights and manifest.weights is None:
        raise PackageError(
            f"block {manifest.name!r:.80} names weights but has none", "a weights blob", _REMEDY
        )


def check_blob_sizes(manifest: Manifest, sizes: Sequence[int]) -> None:
    """Raise PackageError unless the call has the blobs, of the sizes, that the manifest says.

    Args:
        manifest: A checked manifest.
        sizes: Bytes of each blob that the call really has.
    """
    if len(sizes) != manifest.blob_count:
        raise PackageError(
            f"the call of block {manifest.name!r:.80} has {len(sizes)} blobs",
            f"{manifest.blob_count}, as its manifest says",
            _REMEDY,
        )
    for label, blob in _blobs(manifest):
        if sizes[blob.index] != blob.size:
            raise PackageError(
                f"{label} of block {manifest.name!r:.80} has {sizes[blob.index]} bytes",
                f"{blob.size}, as its manifest says",
                _REMEDY,
            )


def check_digest(data: Any, blob: Blob, label: str) -> None:
    """Raise PackageError unless the bytes of `data` have the digest that the manifest says."""
    found = hashlib.sha256(memoryview(data)).hexdigest()
    if found != blob.sha256:
        raise PackageError(
            f"{label} is damaged: its SHA-256 is {found[:16]}...",
            f"{blob.sha256[:16]}..., as its manifest says",
            _REMEDY,
        )
