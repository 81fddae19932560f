"""inspect: reads the contents of a file from its zip directory and JSON. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portrt.format.archive import Archive, engine_calls
from portrt.format.compile_report import CompileReport, report_of_manifest
from portrt.format.manifest import DataDependentSize, Dimension, EngineSpec, Manifest, parse


@dataclass(frozen=True)
class BlockInfo:
    """One engine call.

    Attributes:
        name: Name of the block.
        format: Version of the manifest's format.
        node_count: Number of operators in the block.
        inputs: name, dtype and shape of each input; a dynamic size is "min..opt..max".
        outputs: name, dtype and shape of each output; a size that follows from the inputs is an
            expression.
        source_bytes: Size of the source, or None where it was stripped.
        engines: backend, bytes, sha256, build, requires and check of each, in order of preference;
            of an engine in parts also nodes, nodes_in_engines, and name, bytes and sha256 of each
            of its parts.
        policy: The policy that the file requests where it runs.
        producer: Library -> version that wrote the block.
    """

    name: str
    format: int
    node_count: int
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    source_bytes: int | None
    engines: tuple[Mapping[str, Any], ...]
    policy: Mapping[str, Any]
    producer: Mapping[str, str]


@dataclass(frozen=True)
class ProgramInfo:
    """A file.

    Attributes:
        path: Path of the file.
        file_bytes: Size of the file.
        weights_bytes: Size of the weights image that all blocks share.
        blocks: The engine calls, in order.
        report: Which nodes are in engines, and why the others are not; None in a file without it.
    """

    path: str
    file_bytes: int
    weights_bytes: int
    blocks: tuple[BlockInfo, ...]
    report: CompileReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return dataclasses.asdict(self)


def inspect(path: str | Path) -> ProgramInfo:
    """Read the contents of a compiled program's file.

    Args:
        path: A file that `portrt.save` or `torch.export.save` wrote.

    Raises:
        LoadError: The file is no torch.export archive, or damaged.
        PackageError: A manifest in it is malformed.
    """
    archive = Archive(path)
    calls = engine_calls(archive)
    weights = [call.manifest.weights.size for call in calls if call.manifest.weights]
    return ProgramInfo(
        path=str(path),
        file_bytes=archive.size,
        weights_bytes=max(weights, default=0),
        blocks=tuple(_block(call.manifest) for call in calls),
        report=next(filter(None, (report_of_manifest(parse(call.text)) for call in calls)), None),
    )


def _block(manifest: Manifest) -> BlockInfo:
    return BlockInfo(
        name=manifest.name,
        format=manifest.format,
        node_count=manifest.node_count,
        inputs=tuple(_tensor(spec, manifest) for spec in manifest.inputs),
        outputs=tuple(_tensor(spec, manifest) for spec in manifest.outputs),
        source_bytes=manifest.source.size if manifest.source else None,
        engines=tuple(
            {
                "backend": engine.backend,
                "bytes": sum(blob.size for blob in engine.blobs),
                "sha256": engine.data.sha256,
                "build": dict(engine.build),
                "requires": dict(engine.requires),
                "check": engine.check,
                **_parts(engine),
            }
            for engine in manifest.engines
        ),
        policy=dict(manifest.policy),
        producer=dict(manifest.producer),
    )


def _parts(engine: EngineSpec) -> dict[str, Any]:
    if engine.parts is None:
        return {}
    found = [
        {"name": name, "bytes": blob.size, "sha256": blob.sha256}
        for name, blob in ((part.name, part.engine.data) for part in engine.parts.engines)
    ]
    numbers = {"nodes": engine.parts.nodes, "nodes_in_engines": engine.parts.nodes_in_engines}
    return {"parts": {**numbers, "engines": found}}


def _tensor(spec: Any, manifest: Manifest) -> dict[str, Any]:
    shape = [_size(size, manifest) for size in spec.shape]
    return {"name": spec.name, "dtype": spec.dtype, "shape": shape}


def _size(size: Any, manifest: Manifest) -> int | str:
    if isinstance(size, int):
        return size
    if isinstance(size, Dimension):
        upper = "" if size.max is None else size.max
        return f"{size.symbol}: {size.min}..{size.opt}..{upper}"
    if isinstance(size, DataDependentSize):
        upper = "" if size.max is None else f", at most {size.max}"
        return f"{size.symbol}: data-dependent{upper}"
    return _text(size, manifest)


def _text(tree: Any, manifest: Manifest) -> str:
    """Write an expression for people; it is never parsed."""
    if not isinstance(tree, list):
        return str(tree)
    name, *arguments = tree
    if name == "dim":
        size = manifest.inputs[arguments[0]].shape[arguments[1]]
        if isinstance(size, Dimension):
            return size.symbol
        return f"{manifest.inputs[arguments[0]].name}.shape[{arguments[1]}]"
    signs = {"add": " + ", "mul": "*", "floordiv": "//", "mod": "%", "truediv": "/", "pow": "**"}
    parts = [_text(argument, manifest) for argument in arguments]
    if name in signs:
        return f"({signs[name].join(parts)})"
    return f"{name}({', '.join(parts)})"
