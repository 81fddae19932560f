"""The operator `portrt::execute_engine`: one call of one compiled block.

Imported by torch itself, through the `torch.backends` entry point, so that a saved program loads
with nothing imported but torch. That is why this module imports next to nothing: the rest of
portrt is imported at the first call.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from portrt.runtime.block import LoadedBlock

SCHEMA = "execute_engine(Tensor[] inputs, Tensor[] blobs, str manifest) -> Tensor[]"

_library: Any = None
_lock = threading.Lock()

# id of a block's last blob, which no other block shares -> the block. A weak reference to the blob
# removes the entry: a block lives as long as the program that holds its blobs.
_blocks: dict[int, LoadedBlock] = {}
_watchers: dict[int, weakref.ref[torch.Tensor]] = {}


def register() -> None:
    """Define the operator, once in a process. The entry point that torch calls at import."""
    global _library
    if _library is not None:
        return
    import torch

    library = torch.library.Library("portrt", "DEF")
    library.define(SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl("execute_engine", execute_engine, "CompositeExplicitAutograd")
    library.impl("execute_engine", torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake("portrt::execute_engine", fake_execute_engine, lib=library)
    _library = library


def execute_engine(
    inputs: list[torch.Tensor], blobs: list[torch.Tensor], manifest: str
) -> list[torch.Tensor]:
    """Run a block.

    Args:
        inputs: The block's inputs, as the manifest describes them; never written.
        blobs: 1-D uint8 constants: weights, source and engines.
        manifest: Canonical JSON, see docs/format.md.

    Returns:
        New tensors on the inputs' device, without gradients.

    Raises:
        InputError: An input has the wrong dtype, shape or device.
        PackageError: The manifest or a blob is damaged.
        NoUsableEngineError: Nothing may run the block here.
        EngineError: The engine failed.
    """
    block = _blocks.get(id(blobs[-1])) if blobs else None
    if block is None or block.text != manifest:
        block = load_block(blobs, manifest)
    return block.run(inputs)


def load_block(blobs: Sequence[torch.Tensor], manifest: str) -> LoadedBlock:
    """The block of these blobs, made at the first call."""
    from portrt.runtime.block import LoadedBlock

    with _lock:
        key = id(blobs[-1]) if blobs else 0
        block = _blocks.get(key)
        if block is None or block.text != manifest:
            block = LoadedBlock(manifest, blobs)
            if blobs:
                _blocks[key] = block
                _watchers[key] = weakref.ref(blobs[-1], lambda _: _forget(key))
    return block


def _forget(key: int) -> None:
    _watchers.pop(key, None)
    _blocks.pop(key, None)


def fake_execute_engine(
    inputs: list[torch.Tensor], blobs: list[torch.Tensor], manifest: str
) -> list[torch.Tensor]:
    """Shapes and dtypes of the outputs, with symbolic sizes where the inputs have them."""
    import torch

    from portrt.package import expr
    from portrt.package.manifest import decode
    from portrt.symbols import SYMBOLIC

    block = decode(manifest)

    def size(index: int, axis: int) -> Any:
        return inputs[index].shape[axis]

    return [
        torch.empty(
            [expr.evaluate(part, size, SYMBOLIC) for part in spec.shape],
            dtype=getattr(torch, spec.dtype),
            device=inputs[0].device,
        )
        for spec in block.outputs
    ]
