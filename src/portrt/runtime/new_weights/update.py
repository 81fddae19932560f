"""Weights of a compiled program replaced by those of a state dict of its model."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import forks, torch_internals
from portrt.errors import InputError, SettingsError
from portrt.format.manifest import Blob, decode, encode, parse
from portrt.runtime import op
from portrt.runtime.calls import engine_calls, manifests_of
from portrt.runtime.module_meta import PROGRAM
from portrt.runtime.new_weights import record
from portrt.runtime.new_weights.changes import Changes, changes_of
from portrt.runtime.new_weights.engines import UpdatedBlock, updated_block
from portrt.runtime.new_weights.gate import gate_of, is_in_call
from portrt.runtime.new_weights.image import replaced
from portrt.runtime.new_weights.program import (
    assign,
    drop_blobs,
    held_by,
    image_name,
    own_program,
    set_calls,
    state_of,
)
from portrt.weights import WeightsImage

logger = logging.getLogger(__name__)

# Two updates of one program must not mix.
_lock = forks.renewed(threading.RLock())


@dataclass(frozen=True)
class WeightsUpdate:
    """What `update_weights` changed.

    Attributes:
        changed: Names in the state dict of the tensors that have different numbers now.
        stale: (block, backend, reason) of each engine that was removed, because it would compute
            with the old numbers: the next engine of the block runs, or one is built, or its source
            runs, by the policy.
    """

    changed: tuple[str, ...]
    stale: tuple[tuple[str, str, str], ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.changed)} tensors have new numbers"]
        lines += [f"{block}: the {name} engine is gone: {why}" for block, name, why in self.stale]
        return "\n".join(lines)


def update_weights(
    program: ExportedProgram | torch.nn.Module,
    state_dict: Mapping[str, Any],
    *,
    strict: bool = True,
    check: bool = True,
) -> tuple[ExportedProgram, WeightsUpdate]:
    """Give a compiled program the weights of a state dict, without a build.

    Engines that read their weights from the program have them from the next call on; calls under
    way end with the old ones. Engines that hold weights themselves are removed. Nothing is changed
    if an error is raised. Modules that `program.module()` returned before keep the old weights, and
    a module gets a program of its own.

    Args:
        program: A compiled program or its module; changed in place.
        state_dict: Tensors by their names in the model that was compiled, of the same shapes and
            dtypes, on any device. They are copied.
        strict: Whether the names must be all of the model's. If not, tensors that are missing stay
            as they are, and names that the model has not are ignored.
        check: Whether engines are compared with the source on random inputs, as by `compile`. One
            whose outputs differ is removed.

    Returns:
        The program, which is that of the module from then on, and what changed.

    Raises:
        InputError: Names are missing or unexpected, a tensor has another shape or dtype, or is one
            whose numbers `compile` made operators or constants of.
        NoUsableEngineError: Nothing would be left that the policy allows to run.
        SettingsError: `program` is no compiled program.
    """
    started = time.perf_counter()
    if not isinstance(state_dict, Mapping):
        raise InputError(
            f"update_weights was given a {type(state_dict).__name__}",
            "a mapping of names to tensors",
            "give model.state_dict()",
        )
    if isinstance(program, torch.nn.Module) and is_in_call(program):
        raise SettingsError(
            "update_weights was called within a call of the module",
            "an update between calls: other calls under way may wait for this one",
            "update the weights after the call",
        )
    with _lock:
        module = program if isinstance(program, torch.fx.GraphModule) else None
        exported = program if module is None else module.meta.get(PROGRAM)
        if not isinstance(exported, ExportedProgram):
            raise SettingsError(
                f"update_weights was called on a {type(program).__qualname__}",
                "a program of portrt.compile or portrt.load, or its module",
                "compile the model first",
            )
        if module is not None:
            exported = own_program(exported)
        update = _update(exported, module, state_dict, strict=strict, check=check)
        if module is not None and update.changed:
            module.meta[PROGRAM] = exported
    for block, backend, reason in update.stale:
        logger.warning("the %s engine of %s does not run any more: %s", backend, block, reason)
    seconds = time.perf_counter() - started
    logger.info("%d tensors have new numbers, in %.2f s", len(update.changed), seconds)
    return exported, update


def _update(
    program: ExportedProgram,
    module: torch.fx.GraphModule | None,
    state_dict: Mapping[str, Any],
    *,
    strict: bool,
    check: bool,
) -> WeightsUpdate:
    name = image_name(program)
    image = None if name is None else program.constants[name]
    read = None if image is None else WeightsImage(image.detach().cpu())
    state = state_of(program, module)
    places = record.read(read)
    if places is None:
        first = next((parse(text) for text in manifests_of(program)), {})
        places = record.from_json(first.get(record.FIELD)) or record.by_names(read, state)
    changes = changes_of(state_dict, places, read, state, strict=strict)
    constants = dict(program.constants)
    if name is not None and image is not None and changes.tensors:
        constants[name] = replaced(image, changes.tensors)
    blocks = list(_blocks(program, module, constants, name, read, changes, check))
    if changes.names:
        _prepare(program, module, constants, blocks)
        with contextlib.nullcontext() if module is None else gate_of(module):
            _apply(program, module, constants, blocks, changes.state)
    stale = [(block.name, *gone) for block in blocks for gone in block.stale]
    return WeightsUpdate(changes.names, tuple(stale))


def _blocks(
    program: ExportedProgram,
    module: torch.fx.GraphModule | None,
    constants: Mapping[str, torch.Tensor],
    name: str | None,
    old: WeightsImage | None,
    changes: Changes,
    check: bool,
) -> Iterable[UpdatedBlock]:
    if name is None or not changes.tensors:
        return
    sha256 = Blob.of(0, constants[name].numpy()).sha256
    names = torch_internals.constant_names(program)
    for node in engine_calls(program):
        entry = parse(node.args[2])
        if entry["weights"] is None:
            continue
        entry["weights"]["sha256"] = sha256
        keys = [names[blob.name] for blob in node.args[1]]
        blobs = [constants[key] for key in keys]
        devices = _devices(program, module, keys, node.args[2])
        block = updated_block(encode(entry), blobs, old, changes.tensors, devices, check=check)
        block.blobs = [keys[index] for index in block.kept]
        yield block


def _held(program: ExportedProgram, module: torch.fx.GraphModule | None, name: str) -> torch.Tensor:
    """Return a constant as calls pass it: the module's, if there is one."""
    own = None if module is None else held_by(module, name)
    found: torch.Tensor = program.constants[name] if own is None else own
    return found


def _devices(
    program: ExportedProgram,
    module: torch.fx.GraphModule | None,
    keys: Sequence[str],
    text: str,
) -> list[torch.device]:
    """Return the devices that a block was called on, or else those that its engines are for."""
    key = tuple(id(_held(program, module, name)) for name in keys)
    block = op._same_blobs.get(key, {}).get(text)
    if block is not None and block.selections:
        return [torch.device(device) for device in block.selections]
    kinds = {kind for engine in decode(text).engines for kind in engine.requires["device"]}
    return [torch.device(kind) for kind in sorted(kinds) if kind in ("cpu", "cuda")]


def _prepare(
    program: ExportedProgram,
    module: torch.fx.GraphModule | None,
    constants: Mapping[str, torch.Tensor],
    blocks: Sequence[UpdatedBlock],
) -> None:
    """Give the blocks that calls will find the sessions that are open."""
    for block in blocks:
        blobs = []
        for name in block.blobs:
            new = constants[name]
            is_same = new is program.constants[name]
            blobs.append(_held(program, module, name) if is_same else new)
        loaded = op.load_block(blobs, block.text)
        for key, session in block.sessions.items():
            loaded._sessions[key] = session


def _apply(
    program: ExportedProgram,
    module: torch.fx.GraphModule | None,
    constants: Mapping[str, torch.Tensor],
    blocks: Sequence[UpdatedBlock],
    state: Mapping[str, torch.Tensor],
) -> None:
    """Change program and module; nothing here can fail."""
    calls = {block.name: (block.kept, block.text) for block in blocks}
    for name, tensor in state.items():
        own = None if module is None else held_by(module, name)
        holder = program.state_dict if name in program.state_dict else program.constants
        old = holder[name]
        holder[name] = _like(old, tensor)
        if module is not None and own is not None:
            assign(module, name, holder[name] if own is old else _like(own, tensor))
    for root in (program.graph_module, module):
        if root is not None and calls:
            set_calls(root, calls)
    for name, tensor in constants.items():
        if tensor is not program.constants[name]:
            program.constants[name] = tensor
            if module is not None:
                assign(module, name, tensor)
    if any(block.stale for block in blocks):
        drop_blobs(program)


def _like(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Copy numbers into a tensor of the kind, device and memory layout of another."""
    made = torch.empty_like(old.detach())
    made.copy_(new.detach())
    if isinstance(old, torch.nn.Parameter):
        return torch.nn.Parameter(made, requires_grad=old.requires_grad)
    return made
