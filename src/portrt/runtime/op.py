"""The operator `portrt::execute_engine`: one call of one compiled block.

torch imports this module through the `torch.backends` entry point, so that a saved program loads
with no import but torch. Therefore it imports almost nothing at the top: the rest of portrt is
imported at the first call.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from portrt.runtime.process_state import BLOCKS

if TYPE_CHECKING:
    import torch

    from portrt.runtime.block import LoadedBlock

SCHEMA = "execute_engine(Tensor[] inputs, Tensor[] blobs, str manifest) -> Tensor[]"

_library: Any = None
_register_lock = threading.Lock()

# ids of a block's blobs -> the block that was last called with them: one lookup and one string
# comparison per call. Usually no other block has the same blobs; where equal constants were merged,
# `_same_blobs` holds the others. Weak references to the blobs, with the keys that each is part of,
# remove these entries before an id can be reused by another tensor: a block lives as long as the
# program that holds its blobs.
_Key = tuple[int, ...]
_blocks: dict[_Key, LoadedBlock] = BLOCKS
_same_blobs: dict[_Key, dict[str, LoadedBlock]] = {}
_watched: dict[int, tuple[weakref.ref[torch.Tensor], set[_Key]]] = {}
# No lock: every step is one atomic operation. Calls of one block never wait for another block.


def register() -> None:
    """Define the operator, once per process; the entry point that torch calls at import."""
    global _library
    with _register_lock:
        if _library is not None:
            return
        import torch

        untyped: Any = torch.library.Library
        library = untyped("portrt", "FRAGMENT")
        try:
            library.define(SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
        except RuntimeError:  # libportrt_runtime was loaded before; its own kernels would be called
            torch.ops.portrt.leave_kernels()
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
    block = _blocks.get(tuple(map(id, blobs)))
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
    key = tuple(map(id, blobs))
    known = _same_blobs.get(key, {}).get(manifest)
    made = known or LoadedBlock(manifest, blobs)
    for blob in blobs:
        _watch(blob, key)
    block = _same_blobs.setdefault(key, {}).setdefault(manifest, made)
    _blocks[key] = block
    return block


def _watch(blob: torch.Tensor, key: _Key) -> None:
    """Forget the blocks of a key when the blob dies."""
    found = _watched.get(id(blob))
    if found is None:
        dead = partial(_forget, id(blob))
        found = _watched.setdefault(id(blob), (weakref.ref(blob, dead), set()))
    found[1].add(key)


def _forget(blob: int, _: object) -> None:
    _, keys = _watched.pop(blob)
    for key in tuple(keys):  # a copy: another blob of a key may die in another thread
        _same_blobs.pop(key, None)
        _blocks.pop(key, None)
        for other in key:
            found = _watched.get(other)
            if found is not None:
                found[1].discard(key)


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
