"""A block as stored in a program or a file: its manifest, and the blobs that it describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from portrt.engines.base import OpenOptions, Session
from portrt.format.manifest import (
    Blob,
    EngineSpec,
    Manifest,
    check_blob_sizes,
    check_digest,
    labelled_blobs,
)
from portrt.runtime.open_engine import open_engine
from portrt.weights import WeightsImage, image_from_tensors

if TYPE_CHECKING:
    from portrt.engines.eager import SourceSession
    from portrt.format.archive import Record


class StoredBlock:
    """A manifest with the blobs of its call.

    The digest of the source or of an engine is checked when its bytes are first used. That of the
    weights, which may be many gigabytes, is checked only by `check_weights` and `verify`.

    Args:
        manifest: Manifest of the block.
        blobs: Blobs of the block's call, in order; on any device.
        verified: Whether the caller has checked the digests of all blobs.

    Attributes:
        manifest: Manifest of the block.
        text: Text of the manifest, where the creator has set it.
        signature: Inputs and outputs of the block.
        weights: Its weights image, or None for a block without weights.

    Raises:
        PackageError: The manifest does not describe these blobs, or the weights image is malformed.
    """

    text: str = ""

    def __init__(
        self, manifest: Manifest, blobs: Sequence[torch.Tensor], *, verified: bool = False
    ) -> None:
        check_blob_sizes(manifest, [_byte_size(blob) for blob in blobs])
        self.manifest = manifest
        self.signature = manifest.signature
        # Aliases, not the tensors themselves: the program's tensors must be freed with the program,
        # which in turn frees this block.
        self._blobs = [blob.detach().cpu().contiguous() for blob in blobs]
        self._checked = set(range(len(blobs))) if verified else set()
        entry = manifest.weights
        self.weights = None if entry is None else WeightsImage(self._blobs[entry.index])

    @classmethod
    def mapped(
        cls, manifest: Manifest, records: Sequence[Record], memory: Any, *, verified: bool = False
    ) -> StoredBlock:
        """Create a block over a mapped file; its bytes are not copied.

        Args:
            manifest: Manifest of the block.
            records: Offset and size of each blob of the block's call.
            memory: The mapped file.
            verified: Whether the caller has checked the digests of all blobs.

        Raises:
            PackageError: The weights image is malformed.
        """
        return cls(manifest, [_view(memory, record) for record in records], verified=verified)

    @property
    def name(self) -> str:
        """Return the name of the block."""
        return self.manifest.name

    @property
    def has_source(self) -> bool:
        """Return whether the source is stored; it may have been stripped."""
        return self.manifest.source is not None

    @cached_property
    def image(self) -> torch.Tensor:
        """Return the bytes of the weights image; an empty image for a block without weights."""
        entry = self.manifest.weights
        return image_from_tensors({}) if entry is None else self._blobs[entry.index]

    def checked_blobs(self, engine: EngineSpec) -> list[torch.Tensor]:
        """Return all blobs, on the CPU; the digest of an engine is checked.

        Raises:
            PackageError: It differs from that in the manifest.
        """
        self._bytes(engine.data, f"engine {engine.backend}")
        return self._blobs

    def source(self) -> torch.Tensor:
        """Return the bytes of the source, which the block must have.

        Raises:
            PackageError: Their digest differs from that in the manifest.
        """
        assert self.manifest.source is not None
        return self._bytes(self.manifest.source, "the source")

    def source_session(self, device: torch.device) -> SourceSession:
        """Open the source, which the block must have.

        Args:
            device: Device of the inputs.

        Raises:
            PackageError: The source is damaged, or weights that it takes are missing.
        """
        from portrt.engines.eager import SourceSession  # most processes need no source

        names = self.manifest.source_weights
        return SourceSession(self.signature, self.source(), names, self.weights, device)

    def open_engine(
        self,
        engine: EngineSpec,
        device: torch.device,
        options: OpenOptions,
        bytes_of: Callable[[Blob], torch.Tensor] | None = None,
    ) -> Session:
        """Open one of the block's engines, which its runtime accepts.

        Args:
            engine: The engine's entry.
            device: Device of the inputs.
            options: Memory use and permissions.
            bytes_of: Returns its bytes, for an engine that is not stored.

        Raises:
            EngineError: The native library cannot open it.
            PackageError: The digest of its bytes differs from that in the manifest.
        """
        return open_engine(
            engine,
            self.signature,
            bytes_of or (lambda blob: self._bytes(blob, f"engine {engine.backend}")),
            self.weights,
            device=device,
            options=options,
        )

    def check_weights(self) -> None:
        """Check the digest of the weights, before they are copied to a new file or engine.

        Raises:
            PackageError: It differs from that in the manifest.
        """
        if self.manifest.weights is not None:
            self._bytes(self.manifest.weights, "the weights")

    def verify(self) -> None:
        """Check the digests of all blobs, including those checked before.

        Raises:
            PackageError: A digest differs.
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
    """Return the number of bytes, or -1 (which matches no size) for a tensor that is not a blob."""
    return blob.numel() if blob.dtype == torch.uint8 and blob.dim() == 1 else -1


def _view(memory: Any, record: Record) -> torch.Tensor:
    if not record.size:  # torch.frombuffer rejects it
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(memory, dtype=torch.uint8, count=record.size, offset=record.offset)
