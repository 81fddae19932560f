"""Decompose to the operators that torch.onnx translates; composite ones it takes whole stay whole."""

from __future__ import annotations

from torch.export import ExportedProgram

from portrt import torch_internals


def decompose(program: ExportedProgram) -> ExportedProgram:
    """A functional copy of `program`; attention, norms and GELU stay one node each."""
    with torch_internals.oblivious_to_size_one():
        return program.run_decompositions(torch_internals.onnx_decompositions(torch_internals.NEWEST_OPSET))
