"""The runtime that `compile` chose for a program: of its blobs, in this process."""

from __future__ import annotations

import weakref

import torch
from torch.export import ExportedProgram

from portrt.runtime.process_state import PROGRAM_RUNTIMES


def set_runtime(program: ExportedProgram, runtime: str) -> None:
    """Have the blocks of a program run by a runtime, unless a policy in force names another.

    It is true of the program's own tensors, which its module shares: not of copies and files.

    Args:
        program: A compiled program that was not called yet.
        runtime: "python" or "cpp".
    """
    for blob in _blobs(program):
        PROGRAM_RUNTIMES[id(blob)] = runtime
        weakref.finalize(blob, PROGRAM_RUNTIMES.pop, id(blob), None).atexit = False


def runtime_of(program: ExportedProgram | torch.nn.Module) -> str | None:
    """Return the runtime that a program or its module was given, or None."""
    found = (PROGRAM_RUNTIMES.get(id(blob)) for blob in _blobs(program))
    return next((runtime for runtime in found if runtime), None)


def _blobs(program: ExportedProgram | torch.nn.Module) -> list[torch.Tensor]:
    if isinstance(program, ExportedProgram):
        tensors = list(program.constants.values())
    else:
        tensors = [*program.buffers(), *vars(program).values()]
    return [
        item for item in tensors if isinstance(item, torch.Tensor) and item.dtype == torch.uint8
    ]
