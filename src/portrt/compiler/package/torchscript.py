"""Writer of programs as TorchScript."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import IO, Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.errors import SettingsError
from portrt.format.atomic import OnBytes, Write


def torchscript_writer(program: ExportedProgram) -> Write:
    """Trace a program with its example inputs, and return a function that writes the script.

    Raises:
        SettingsError: It has no example inputs, sizes that tracing would freeze, or control flow.
    """
    script = _torchscript_of(program)
    return lambda file, on_bytes: _write(script, file, on_bytes)


def _write(script: torch.jit.ScriptModule, file: IO[bytes], on_bytes: OnBytes) -> None:
    counted = _Counted(file, on_bytes)
    try:
        torch.jit.save(script, counted)
    except Exception:
        if counted.error is not None:  # torch hides the cause behind an error of its own
            raise counted.error from None
        raise


class _Counted(io.RawIOBase):
    """A file that reports written bytes to a progress bar, and keeps the first error."""

    def __init__(self, file: IO[bytes], bar: Callable[[int], None]) -> None:
        super().__init__()
        self._file = file
        self._bar = bar
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        if self.error is not None:
            return 0
        try:
            count = self._file.write(data)
            self._bar(count)
        except BaseException as err:
            self.error = err
            raise
        return count

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)  # torch rewinds when it is done


def _torchscript_of(program: ExportedProgram) -> torch.jit.ScriptModule:
    """Trace a program to TorchScript with its example inputs.

    Raises:
        SettingsError: It has no example inputs, sizes that tracing would freeze, or control flow.
    """
    if program.example_inputs is None:
        raise SettingsError(
            "the program has no example inputs",
            "example inputs to trace it with",
            "compile the model again, with tensors as inputs",
        )
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise SettingsError(
                f"{node.name!r} calls {node.target!s} in PyTorch, which TorchScript does not have",
                "a program whose control flow is inside engines",
                "save it as an exported program; the report of compile states what keeps it out",
            )
        if node.op == "call_function" and torch_internals.is_symbolic_call(node) and node.users:
            raise SettingsError(
                f"PyTorch computes the size {node.name!r} from the shapes of a call, and "
                "TorchScript would freeze it at the example's",
                "a program whose dynamic sizes are inside engines",
                "save it as an exported program, or compile it with static shapes",
            )
    args, kwargs = program.example_inputs
    module = _Positional(program.module(check_guards=False), list(kwargs), len(args))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # of tracing what is constant here, and of TorchScript's age
        trace: Any = torch.jit.trace
        traced: torch.jit.ScriptModule = trace(
            module, (*args, *kwargs.values()), strict=False, check_trace=False
        )
    return traced


class _Positional(torch.nn.Module):
    """Takes keyword arguments after the positional ones: TorchScript is traced with one tuple."""

    def __init__(self, module: torch.nn.Module, names: list[str], positional: int) -> None:
        super().__init__()
        self.module = module
        self._names = names
        self._positional = positional

    def forward(self, *args: Any) -> Any:
        kwargs = dict(zip(self._names, args[self._positional :], strict=True))
        # Not __call__: its hook compares shapes, which tracing does not allow.
        return self.module.forward(*args[: self._positional], **kwargs)
