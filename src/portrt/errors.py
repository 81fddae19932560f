"""The errors of portrt: what happened, what was expected, what to do."""

from __future__ import annotations

import reprlib


class PortrtError(Exception):
    """Base class of every error that portrt raises on purpose.

    Args:
        happened: The fact, with the names, shapes and versions involved.
        expected: What would have been correct.
        remedy: What the user can do.
    """

    def __init__(self, happened: str, expected: str, remedy: str) -> None:
        super().__init__(happened, expected, remedy)
        self.happened = happened
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.happened}\n  Expected: {self.expected}\n  Do: {self.remedy}"


class SettingsError(PortrtError, ValueError):
    """An option of `compile`, `save` or `load` is unknown or has an invalid value."""


class CaptureError(PortrtError):
    """`torch.export` could not capture the model; torch's own error is the cause."""


class LowerError(PortrtError):
    """The program could not be lowered, or a user pass failed or left an invalid graph."""


class PartitionError(PortrtError):
    """Nodes stay in PyTorch although full compilation was required."""


class ConvertError(PortrtError):
    """A block could not be translated to ONNX.

    Attributes:
        node: Name of the graph node that has no translation, or None if it is not known.
    """

    def __init__(self, happened: str, expected: str, remedy: str, node: str | None = None) -> None:
        super().__init__(happened, expected, remedy)
        self.args = (happened, expected, remedy, node)
        self.node = node


class BuildError(PortrtError):
    """A backend could not build an engine."""


class CheckError(PortrtError):
    """The outputs of an engine differ from those of the block that it was built from.

    Attributes:
        backend: Backend of the engine, or "" if it is not known.
    """

    def __init__(self, happened: str, expected: str, remedy: str, backend: str = "") -> None:
        super().__init__(happened, expected, remedy)
        self.args = (happened, expected, remedy, backend)
        self.backend = backend


class BackendUnavailableError(PortrtError):
    """A requested backend is unknown, not installed or broken on this machine."""


class PackageError(PortrtError):
    """A program, its manifest or its blobs are damaged, inconsistent or of an unknown format.

    Attributes:
        field: Where in the manifest, as a JSON pointer such as "/inputs/0/shape/1/min"; "" is the
            whole text. None for errors that are about no field.
    """

    def __init__(self, happened: str, expected: str, remedy: str, field: str | None = None) -> None:
        super().__init__(happened, expected, remedy)
        self.args = (happened, expected, remedy, field)
        self.field = field


class SaveError(PortrtError, OSError):
    """A program could not be written; the previous file at the path is unchanged."""

    def __init__(self, happened: str, expected: str, remedy: str) -> None:
        PortrtError.__init__(self, happened, expected, remedy)
        # OSError takes three arguments for an error number, its text and a file name.
        self.errno = self.strerror = self.filename = None
        self.args = (happened, expected, remedy)


class LoadError(PortrtError):
    """A file could not be read as a program."""


class InputError(PortrtError, ValueError):
    """An input of a call, or a new weight, has the wrong name, number, dtype, shape or device."""


class NoUsableEngineError(PortrtError, RuntimeError):
    """No stored engine fits this machine, and the policy forbids running the source in PyTorch."""


class EngineError(PortrtError, RuntimeError):
    """An engine failed while it was opened or run."""


class OutOfProfileError(EngineError):
    """The sizes of a call are in none of the optimization profiles of an engine."""


def brief(value: object, limit: int = 60) -> str:
    """Return a shortened `repr(value)` in bounded time, however large or nested the value is."""
    cutter = reprlib.Repr()
    cutter.maxlevel = 3
    cutter.maxstring = cutter.maxother = cutter.maxlong = limit
    try:
        return cutter.repr(value)[:limit]
    except ValueError:  # Python does not print integers of more than 4300 digits
        return f"a huge {type(value).__name__}"


def first_line(err: BaseException) -> str:
    """Return the first line of an error's text, or its type."""
    text = str(err).strip()
    return text.splitlines()[0] if text else type(err).__name__
