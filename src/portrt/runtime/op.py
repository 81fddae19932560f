"""The operator `portrt::execute_engine`: one call of one compiled block.

torch imports this module through the `torch.backends` entry point, so that a saved program loads
with no import but torch. Therefore it imports almost nothing at the top: the rest of portrt is
imported at the first call.
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
_register_lock = threading.Lock()

# id of a block's last blob -> the block that was last called with it: one lookup and one string
# comparison per call. Usually no other block has that blob; if equal constants were merged,
# `_same_blob` holds the other blocks. A weak reference to the blob removes both entries before its
# id can be reused by another tensor: a block lives as long as the program that holds its blobs.
_blocks: dict[int, LoadedBlock] = {}
_same_blob: dict[int, dict[str, LoadedBlock]] = {}
_watchers: dict[int, weakref.ref[torch.Tensor]] = {}
# No lock: every step is one atomic dict operation. Calls of one block never wait for another block.


def register() -> None:
    """Define the operator, once per process; the entry point that torch calls at import."""
    global _library
    with _register_lock:
        if _library is not None:
            return
        import torch

        untyped: Any = torch.library.Library
        library = untyped("portrt", "DEF")
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
        inputs: Inputs of the block as the manifest describes them; never modified.
        blobs: 1-D uint8 constants: weights, source and engines.
        manifest: Canonical JSON, see docs/format.md.

    Returns:
        New tensors on the inputs' device, without gradients.

    Raises:
        InputError: An input has the wrong dtype, shape or device.
        PackageError: The manifest or a blob is damaged.
        NoUsableEngineError: The policy allows nothing that can run the block here.
        EngineError: The engine failed.
    """
    block = _blocks.get(id(blobs[-1])) if blobs else None
    if block is None or block.text != manifest:
        block = load_block(blobs, manifest)
    return block.run(inputs)


def load_block(blobs: Sequence[torch.Tensor], manifest: str) -> LoadedBlock:
    """Return the block of these blobs, created at the first call.

    If two threads create it concurrently, both get the one that was stored first.
    """
    from portrt.runtime.block import LoadedBlock

    if not blobs:  # cannot be cached, and has nothing to run
        return LoadedBlock(manifest, blobs)
    key = id(blobs[-1])
    known = _same_blob.get(key, {}).get(manifest)
    made = known or LoadedBlock(manifest, blobs)
    block = _same_blob.setdefault(key, {}).setdefault(manifest, made)
    _blocks[key] = block
    if key not in _watchers:
        _watchers[key] = weakref.ref(blobs[-1], lambda _: _forget(key))
    return block


def _forget(key: int) -> None:
    _watchers.pop(key, None)
    _same_blob.pop(key, None)
    _blocks.pop(key, None)


def fake_execute_engine(
    inputs: list[torch.Tensor],
    blobs: list[torch.Tensor],  # noqa: ARG001  (the schema has it)
    manifest: str,
) -> list[torch.Tensor]:
    """Return empty outputs, with symbolic sizes where the inputs have them.

    Calls with tensors on the meta device run this function as well, hence the checks.
    """
    import torch

    from portrt.format.manifest import decode
    from portrt.graphs.symbols import SYMBOLIC
    from portrt.runtime.input_check import check_inputs, output_shapes

    signature = decode(manifest).signature
    check_inputs(signature, inputs)
    sizes: dict[str, Any] = {}  # equal symbols are equal sizes

    def unknown(size: Any) -> Any:
        if size.symbol not in sizes:
            sizes[size.symbol] = torch.library.get_ctx().new_dynamic_size(max=size.max)
        return sizes[size.symbol]

    shapes = output_shapes(signature, inputs, SYMBOLIC, unknown)
    device = inputs[0].device
    return [
        torch.empty(shape, dtype=getattr(torch, spec.dtype), device=device)
        for spec, shape in zip(signature.outputs, shapes, strict=True)
    ]
