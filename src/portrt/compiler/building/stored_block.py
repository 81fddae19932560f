"""A block of a file as what engines are built from: its source as a program, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from portrt.compiler.plan import Block
from portrt.engines.eager import program_from_source
from portrt.format.editor import CallEditor
from portrt.format.manifest import Manifest, check_digest
from portrt.weights import WeightsImage, image_from_tensors


@dataclass(frozen=True)
class StoredBlock:
    """A block, as `partition` made it once.

    Attributes:
        block: The block.
        manifest: The same, as the file describes it.
        tensors: Its weights by name: views of the image.
        image: The weights image of the program; one without tensors where the block has none.
    """

    block: Block
    manifest: Manifest
    tensors: Mapping[str, torch.Tensor]
    image: torch.Tensor


def stored_block(call: CallEditor, mapped: Any) -> StoredBlock:
    """Read a block; its weights stay in the mapped file, and their digest is not checked.

    Args:
        call: Of a block that has its source.
        mapped: The memory of the file.

    Raises:
        PackageError: The source or the weights are damaged.
    """
    manifest = call.manifest()
    source = _tensor(call, call.entry["source"], mapped)
    assert manifest.source is not None
    check_digest(source.numpy(), manifest.source, f"the source of {manifest.name}")
    weights = call.entry["weights"]
    image = image_from_tensors({}) if weights is None else _tensor(call, weights, mapped)
    views = WeightsImage(image)
    block = Block(
        name=manifest.name,
        program=program_from_source(manifest.name, source),
        weights=manifest.source_weights,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        node_count=manifest.node_count,
    )
    tensors = {name: views.tensor(name) for name in manifest.source_weights}
    return StoredBlock(block, manifest, tensors, image)


def _tensor(call: CallEditor, blob: Mapping[str, Any], mapped: Any) -> torch.Tensor:
    record = call.record(blob)
    return torch.frombuffer(mapped, dtype=torch.uint8, count=record.size, offset=record.offset)
