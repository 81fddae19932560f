"""Reconstruction of a plan from a stored block."""

from __future__ import annotations

from portrt.compiler.plan import Block, Plan
from portrt.engines.eager import program_from_source
from portrt.runtime.stored_block import StoredBlock


def plan_from_source(stored: StoredBlock, *, is_whole_model: bool = False) -> Plan:
    """Return a plan of this block, equal to its part of the plan when the program was compiled.

    Args:
        stored: Block with its source. The tensors of the plan are views of its weights, whose
            digest is not checked.
        is_whole_model: Whether the block is all of its program.

    Raises:
        PackageError: The source is damaged, or weights are missing.
    """
    manifest = stored.manifest
    block = Block(
        name=manifest.name,
        program=program_from_source(f"the source of {manifest.name}", stored.source()),
        weights=manifest.source_weights,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        node_count=manifest.node_count,
        is_whole_model=is_whole_model,
    )
    tensors = {}
    for name in block.weights:
        assert stored.weights is not None  # checked when the manifest was decoded
        tensors[name] = stored.weights.tensor(name)
    return Plan(block.program, block.program.graph_module, (block,), tensors, ())
