"""The manifest of an engine call, as canonical JSON. Imports no torch.

docs/format.md describes every field; `FORMAT_HISTORY` below is its version history.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from portrt.errors import PackageError, brief
from portrt.format.dimensions import DataDependentSize as DataDependentSize
from portrt.format.dimensions import Dimension as Dimension
from portrt.format.dimensions import has_data_dependent_sizes, input_shape, output_shape
from portrt.format.engine_info import EngineInfo as EngineInfo
from portrt.format.engine_spec import Blob as Blob
from portrt.format.engine_spec import EngineSpec as EngineSpec
from portrt.format.engine_spec import Part as Part
from portrt.format.engine_spec import Parts as Parts
from portrt.format.engine_spec import blob_field, blobs_of_engines, engine_fields
from portrt.format.json_fields import REMEDY as _REMEDY
from portrt.format.json_fields import Fields, strict_json
from portrt.format.memory_map import sha256_of
from portrt.format.signature import InputSpec as InputSpec
from portrt.format.signature import OutputSpec as OutputSpec
from portrt.format.signature import Signature as Signature

# Readers reject newer versions. The writer uses the oldest version that can express a program.
FORMAT = 3
OLDEST_FORMAT = 1
FORMAT_HISTORY = {
    1: "2026-11-24: first version",
    2: "2026-11-24: data-dependent output sizes",
    3: "2026-11-30: engines in parts",
}

MAX_MANIFEST_CHARS = 16 << 20
DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"),
    *("complex64", "complex128"),
)


def encode(manifest: Mapping[str, Any]) -> str:
    """Encode a manifest as canonical JSON: sorted keys, no spaces, ASCII, no NaN.

    Readers accept any order of keys and any whitespace: the canonical form only makes equal
    contents equal texts.
    """
    return json.dumps(
        manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def compose(**fields: Any) -> str:
    """Compose the text of a manifest from these fields, with empty values for the others."""
    empty: dict[str, Any] = {
        "format": oldest_version(fields),
        "producer": {},
        "weights": None,
        "source": None,
        "source_weights": [],
        "node_count": 0,
        "engines": [],
        "policy": {"fallback": None},
        "blob_count": 0,
    }
    return encode({**empty, **fields})


def oldest_version(fields: Mapping[str, Any]) -> int:
    """Return the oldest version that can express a manifest."""
    if any(engine.get("parts") is not None for engine in fields.get("engines", ())):
        return 3
    return 2 if has_data_dependent_sizes(fields["outputs"]) else 1


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
        policy: Policy stored in the program: "fallback" and "engines".
        blob_count: Number of blobs that the call must have.
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

    @property
    def signature(self) -> Signature:
        """Return the inputs and outputs of the block."""
        return Signature(self.name, self.inputs, self.outputs)


@lru_cache(maxsize=1024)
def decode(text: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        PackageError: It is not JSON, has an unknown format version, or is inconsistent.
    """
    return _decode(parse(text))


def parse(text: str) -> dict[str, Any]:
    """Parse a manifest into plain values; checks only that it is strict JSON, and its version.

    Raises:
        PackageError: It is too long, not strict JSON (a duplicate key, NaN, an infinite float), or
            of a format version that this version of portrt does not read.
    """
    if len(text) > MAX_MANIFEST_CHARS:
        raise PackageError(
            f"a manifest of {len(text)} characters", f"at most {MAX_MANIFEST_CHARS}", _REMEDY, ""
        )
    try:
        raw = strict_json(text)
    except (ValueError, RecursionError) as err:
        raise PackageError(f"a manifest is not JSON: {err}", "canonical JSON", _REMEDY, "") from err
    if not isinstance(raw, dict):
        raise PackageError("a manifest is not a JSON object", "a JSON object", _REMEDY, "")
    version = raw.get("format")
    if type(version) is not int or not OLDEST_FORMAT <= version <= FORMAT:
        raise PackageError(
            f"the program has format version {brief(version)}",
            f"a version from {OLDEST_FORMAT} to {FORMAT}",
            "install a newer portrt" if type(version) is int and version > FORMAT else _REMEDY,
            "/format",
        )
    return raw


def _decode(raw: dict[str, Any]) -> Manifest:
    top = Fields(raw, "the manifest")
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
        weights=None if top.is_null("weights") else blob_field(top, "weights"),
        source=None if top.is_null("source") else blob_field(top, "source"),
        source_weights=top.names("source_weights"),
        node_count=top.integer("node_count"),
        engines=tuple(
            engine_fields(item, name, top.at("engines", index), raw["format"], ranks)
            for index, item in enumerate(top.items("engines"))
        ),
        policy=_policy(top),
        blob_count=top.integer("blob_count"),
    )
    _check_blobs(manifest)
    return manifest


def _dtype(part: Fields) -> str:
    name = part.text("dtype")
    if name not in DTYPES:
        raise part.bad("dtype", f"is {brief(name)}", f"one of {', '.join(DTYPES)}")
    return name


def _inputs(top: Fields) -> tuple[InputSpec, ...]:
    found: list[InputSpec] = []
    ranks: list[int] = []
    raw = top.items("inputs")
    if not raw:
        raise PackageError(f"{top.where} has no inputs", "at least one", _REMEDY, "/inputs")
    for index, item in enumerate(raw):
        part = Fields(item, f"an input of {top.where}", top.at("inputs", index))
        part.where = f"input {part.text('name')!r:.80} of {top.where}"
        shape = input_shape(part, ranks)
        found.append(InputSpec(part.text("name"), _dtype(part), shape))
    _check_profile_counts(found, top)
    return tuple(found)


def _check_profile_counts(inputs: Iterable[InputSpec], top: Fields) -> None:
    """Check that all dimensions with profiles have the same number of them."""
    count = 0
    for index, spec in enumerate(inputs):
        for axis, size in enumerate(spec.shape):
            found = len(size.profiles) if isinstance(size, Dimension) else 0
            count = count or found
            if found not in (0, count):
                raise PackageError(
                    f"input {spec.name!r:.80} of {top.where} has {found} profiles",
                    f"{count}, as the dimensions before it",
                    _REMEDY,
                    top.at("inputs", index, "shape", axis, "profiles"),
                )


def _outputs(top: Fields, ranks: list[int]) -> tuple[OutputSpec, ...]:
    found = []
    raw = top.items("outputs")
    if not raw:
        raise PackageError(f"{top.where} has no outputs", "at least one", _REMEDY, "/outputs")
    for index, item in enumerate(raw):
        part = Fields(item, f"an output of {top.where}", top.at("outputs", index))
        part.where = f"output {part.text('name')!r:.80} of {top.where}"
        shape = output_shape(part, ranks)
        unknown = [axis for axis, size in enumerate(shape) if isinstance(size, DataDependentSize)]
        if top.raw["format"] < 2 and unknown:
            raise PackageError(
                f"{part.where} has a data-dependent size, in format version 1",
                "format version 2",
                _REMEDY,
                part.at("shape", unknown[0]),
            )
        found.append(OutputSpec(part.text("name"), _dtype(part), shape))
    return tuple(found)


def _policy(top: Fields) -> Mapping[str, Any]:
    policy = top.mapping("policy")
    part = top.part("policy")
    if policy.get("fallback") not in (None, "eager", "error"):
        raise part.bad("fallback", f"is {brief(policy['fallback'])}", "'eager' or 'error'")
    if policy.get("engines") is not None:
        part.names("engines")
    return policy


def _blobs(manifest: Manifest) -> Iterable[tuple[str, Blob, str]]:
    """Yield each blob's label for messages, the blob, and the JSON pointer of its entry."""
    for label, blob, path in (
        ("the weights", manifest.weights, "/weights"),
        ("the source", manifest.source, "/source"),
    ):
        if blob is not None:
            yield label, blob, path
    yield from blobs_of_engines(manifest.engines)


def _check_blobs(manifest: Manifest) -> None:
    """Check that the manifest refers to every blob of the call exactly once."""
    block = f"block {manifest.name!r:.80}"
    owner: dict[int, str] = {}
    for label, blob, path in _blobs(manifest):
        if blob.index >= manifest.blob_count:
            raise PackageError(
                f"{label} of {block} refers to blob {blob.index}",
                f"an index below the {manifest.blob_count} blobs of the call",
                _REMEDY,
                f"{path}/blob",
            )
        if blob.index in owner:
            raise PackageError(
                f"{label} and {owner[blob.index]} of {block} are one blob",
                "one blob each",
                _REMEDY,
                f"{path}/blob",
            )
        owner[blob.index] = label
    if len(owner) != manifest.blob_count:
        raise PackageError(
            f"{block} describes {len(owner)} of {manifest.blob_count} blobs",
            "a description of each blob",
            _REMEDY,
            "/blob_count",
        )
    needs_weights = manifest.source_weights or any(map(_takes_weights, manifest.engines))
    if needs_weights and manifest.weights is None:
        raise PackageError(
            f"{block} names weights but has none", "a weights blob", _REMEDY, "/weights"
        )


def _takes_weights(engine: EngineSpec) -> bool:
    inner = () if engine.parts is None else engine.parts.engines
    return bool(engine.weights) or any(part.engine.weights for part in inner)


def check_blob_sizes(manifest: Manifest, sizes: Sequence[int]) -> None:
    """Raise PackageError unless number and sizes of the blobs match the manifest.

    Args:
        manifest: A checked manifest.
        sizes: Actual number of bytes of each blob of the call.
    """
    if len(sizes) != manifest.blob_count:
        raise PackageError(
            f"the call of block {manifest.name!r:.80} has {len(sizes)} blobs",
            f"{manifest.blob_count}, as in its manifest",
            _REMEDY,
            "/blob_count",
        )
    for label, blob, path in _blobs(manifest):
        if sizes[blob.index] != blob.size:
            raise PackageError(
                f"{label} of block {manifest.name!r:.80} has {sizes[blob.index]} bytes",
                f"{blob.size}, as in its manifest",
                _REMEDY,
                f"{path}/size",
            )


def labelled_blobs(manifest: Manifest) -> list[tuple[str, Blob]]:
    """Return every blob of a call, with a label for messages."""
    labelled = [("the weights", manifest.weights), ("the source", manifest.source)]
    labelled += [
        (f"engine {engine.backend}", blob) for engine in manifest.engines for blob in engine.blobs
    ]
    return [(label, blob) for label, blob in labelled if blob is not None]


def check_digest(data: Any, blob: Blob, label: str) -> None:
    """Raise PackageError unless the bytes of `data` match the digest in the manifest."""
    found = sha256_of(data)
    if found != blob.sha256:
        raise PackageError(
            f"{label} is damaged: its SHA-256 is {found[:16]}...",
            f"{blob.sha256[:16]}..., as in its manifest",
            _REMEDY,
        )
