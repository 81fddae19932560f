"""Reconstruction of a plan from a stored block."""

from __future__ import annotations

import torch

from portrt.compiler.plan import Block, Plan
from portrt.engines.eager import program_from_source
from portrt.runtime.new_weights.record import changeable
from portrt.runtime.stored_block import StoredBlock

_CPU = torch.device("cpu")


def plan_from_source(
    stored: StoredBlock, *, is_whole_model: bool = False, device: torch.device = _CPU
) -> Plan:
    """Return a plan of this block, equal to its part of the plan when the program was compiled.

    Args:
        stored: Block with its source. The tensors of the plan are views of its weights, whose
            digest is not checked.
        is_whole_model: Whether the block is all of its program.
        device: Device of the block's inputs, for builders that read it from the program.

    Raises:
        PackageError: The source is damaged, or weights are missing.
    """
    manifest = stored.manifest
    program = program_from_source(f"the source of {manifest.name}", stored.source())
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    block = Block(
        name=manifest.name,
        program=program,
        weights=manifest.source_weights,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        node_count=manifest.node_count,
        is_whole_model=is_whole_model,
        changeable=changeable(stored.weights, manifest.source_weights),
    )
    tensors = {}
    for name in block.weights:
        assert stored.weights is not None  # checked when the manifest was decoded
        tensors[name] = stored.weights.tensor(name)
    return Plan(block.program, block.program.graph_module, (block,), tensors, ())
