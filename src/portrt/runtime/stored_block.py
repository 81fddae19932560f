"""A block as a program or a file stores it: its manifest, and the blobs that it describes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from portrt.engines.eager import SourceSession
from portrt.format.manifest import (
    Blob,
    EngineSpec,
    Manifest,
    check_blob_sizes,
    check_digest,
    labelled_blobs,
)
from portrt.weights import WeightsImage, image_from_tensors

if TYPE_CHECKING:
    from portrt.format.archive import Record


class StoredBlock:
    """A manifest with the blobs of its call.

    The digest of the source or of an engine is checked when its bytes are asked for first. That of
    the weights, which may be many gigabytes, is checked by `check_weights` and `verify` alone.

    Args:
        manifest: Of the block.
        blobs: As its call has them, on any device.
        verified: The caller checked the digests of all blobs.

    Attributes:
        manifest: Of the block.
        signature: What the block takes and returns.
        weights: Its weights image, or None for a block without weights.

    Raises:
        PackageError: The manifest does not describe these blobs, or the weights image is malformed.
    """

    def __init__(
        self, manifest: Manifest, blobs: Sequence[torch.Tensor], *, verified: bool = False
    ) -> None:
        check_blob_sizes(manifest, [_byte_size(blob) for blob in blobs])
        self.manifest = manifest
        self.signature = manifest.signature
        # Aliases, not the tensors themselves: these die with the program, which frees this block.
        self._blobs = [blob.detach().cpu().contiguous() for blob in blobs]
        self._checked = set(range(len(blobs))) if verified else set()
        entry = manifest.weights
        self.weights = None if entry is None else WeightsImage(self._blobs[entry.index])

    @classmethod
    def mapped(
        cls, manifest: Manifest, records: Sequence[Record], memory: Any, *, verified: bool = False
    ) -> StoredBlock:
        """Make a block of a mapped file; its bytes stay in the file.

        Args:
            manifest: Of the block.
            records: Where each blob of its call lies.
            memory: The mapped file.
            verified: The caller checked the digests of all blobs.

        Raises:
            PackageError: The weights image is malformed.
        """
        return cls(manifest, [_view(memory, record) for record in records], verified=verified)

    @property
    def name(self) -> str:
        """Of the block."""
        return self.manifest.name

    @property
    def has_source(self) -> bool:
        """Whether the source is there; it may have been stripped."""
        return self.manifest.source is not None

    @cached_property
    def image(self) -> torch.Tensor:
        """The bytes of the weights image; of one without tensors for a block without weights."""
        entry = self.manifest.weights
        return image_from_tensors({}) if entry is None else self._blobs[entry.index]

    def source(self) -> torch.Tensor:
        """Return the bytes of the source, which the block must have.

        Raises:
            PackageError: Their digest is not that of the manifest.
        """
        assert self.manifest.source is not None
        return self._bytes(self.manifest.source, "the source")

    def source_session(self, device: torch.device) -> SourceSession:
        """Open the source, which the block must have.

        Args:
            device: Where the inputs will be.

        Raises:
            PackageError: The source is damaged, or the weights that it takes are missing.
        """
        names = self.manifest.source_weights
        return SourceSession(self.signature, self.source(), names, self.weights, device)

    def engine_bytes(self, engine: EngineSpec) -> torch.Tensor:
        """Return the bytes of one of the block's engines.

        Raises:
            PackageError: Their digest is not that of the manifest.
        """
        return self._bytes(engine.data, f"engine {engine.backend}")

    def check_weights(self) -> None:
        """Check the digest of the weights, for what would keep damaged ones.

        Raises:
            PackageError: It is not that of the manifest.
        """
        if self.manifest.weights is not None:
            self._bytes(self.manifest.weights, "the weights")

    def verify(self) -> None:
        """Check the digests of all blobs, also of those that were checked before.

        Raises:
            PackageError: One of them differs.
        """
        self._checked.clear()
        for label, blob in labelled_blobs(self.manifest):
            self._bytes(blob, label)

    def _bytes(self, blob: Blob, label: str) -> torch.Tensor:
        data = self._blobs[blob.index]
        if blob.index not in self._checked:
            check_digest(data.numpy(), blob, f"{label} of {self.name}")
            self._checked.add(blob.index)
        return data


def _byte_size(blob: torch.Tensor) -> int:
    """Number of bytes, or -1 for a tensor that is no blob, which equals no size."""
    return blob.numel() if blob.dtype == torch.uint8 and blob.dim() == 1 else -1


def _view(memory: Any, record: Record) -> torch.Tensor:
    if not record.size:  # torch.frombuffer refuses it
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(memory, dtype=torch.uint8, count=record.size, offset=record.offset)
