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
_register_lock = threading.Lock()

# id of a block's last blob -> the block that was called with it last: one look-up and one
# comparison of texts a call. As a rule no other block has that blob; where equal constants were
# merged, `_same_blob` has the others. A weak reference to the blob removes both entries, before its
# id can be another tensor's: a block lives as long as the program that holds its blobs.
_blocks: dict[int, LoadedBlock] = {}
_same_blob: dict[int, dict[str, LoadedBlock]] = {}
_watchers: dict[int, weakref.ref[torch.Tensor]] = {}
# No lock: every step is one atomic step of a dict. Calls of a block wait for no other block.


def register() -> None:
    """Define the operator, once in a process. The entry point that torch calls at import."""
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
    """The block of these blobs, made at the first call.

    Two threads may both make it; both get the one that was kept.
    """
    from portrt.runtime.block import LoadedBlock

    if not blobs:  # nothing can be remembered of it, and nothing can run
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
    """Shapes and dtypes of the outputs, with symbolic sizes where the inputs have them.

    Also what runs for a call with a tensor on the meta device: hence the checks.
    """
    import torch

    from portrt.format.manifest import decode
    from portrt.graphs.symbols import SYMBOLIC
    from portrt.runtime.input_check import check_inputs, output_shapes

    signature = decode(manifest).signature
    check_inputs(signature, inputs)
    made: dict[str, Any] = {}  # sizes with one symbol are one size

    def unknown(size: Any) -> Any:
        if size.symbol not in made:
            made[size.symbol] = torch.library.get_ctx().new_dynamic_size(max=size.max)
        return made[size.symbol]

    shapes = output_shapes(signature, inputs, SYMBOLIC, unknown)
    device = inputs[0].device
    return [
        torch.empty(shape, dtype=getattr(torch, spec.dtype), device=device)
        for spec, shape in zip(signature.outputs, shapes, strict=True)
    ]
