"""Verdicts: a yes, or a no with its code, reason and remedy. Imports no other portrt module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

# Codes for programs: they are stable, texts may change. docs/format.md lists those of stored
# engines.
Code = Literal[
    "ok",
    "policy",
    "unknown_backend",
    "wrong_device",
    "wrong_platform",
    "no_gpu",
    "wrong_gpu",
    "driver_too_old",
    "library_missing",
    "library_version",
    "requirement_missing",
    "untrusted_code",
    "source_missing",
    "open_failed",
    "check_failed",
    "no_builder",
    "build_failed",
    "left_out",
    "unsupported_operator",
    "unsupported_dtype",
    "unsupported_size",
    "no_translation",
    "wrong_results",
    "bound_to_pytorch",
    "block_too_small",
    "constant_block",
]

CODES: Final[Mapping[Code, str]] = {
    "ok": "Yes.",
    # Of a stored engine, a source or a backend, on a machine.
    "policy": "The policy, of the file or of the caller, does not allow it.",
    "unknown_backend": "This version of portrt knows no backend of that name.",
    "wrong_device": "It takes tensors of another device type.",
    "wrong_platform": "It is for another operating system or CPU architecture.",
    "no_gpu": "It needs an NVIDIA GPU, and none is available.",
    "wrong_gpu": "It is for GPUs of other compute capabilities.",
    "driver_too_old": "The GPU driver is older than the CUDA version that it was built with.",
    "library_missing": "A library that it needs is not installed, or cannot be loaded.",
    "library_version": "A library that it needs is installed in an incompatible version.",
    "requirement_missing": "The file lacks a requirement that compatibility depends on.",
    "untrusted_code": "It carries host code, which the caller does not trust.",
    "source_missing": "It needs the source of the block, which was stripped.",
    "open_failed": "Its library could not open it.",
    "check_failed": "Its outputs differ from PyTorch's, or could not be compared.",
    "no_builder": "No builder is installed, or the installed one cannot build here.",
    "build_failed": "No engine could be built.",
    # Of a node of a graph, in a compilation.
    "left_out": "An option of the caller keeps it in PyTorch.",
    "unsupported_operator": "Engines, or those of this backend, do not implement the operator.",
    "unsupported_dtype": "The backend has no such dtype.",
    "unsupported_size": "A size is data-dependent, or not integer arithmetic on input sizes.",
    "no_translation": "torch.onnx does not translate it, or translates it wrongly.",
    "wrong_results": "The backend's library gives results that differ from PyTorch's.",
    "bound_to_pytorch": "Another node that it cannot be separated from is in PyTorch.",
    "block_too_small": "Its block has fewer operators than `min_block_size`.",
    "constant_block": "Its block has no inputs.",
}


@dataclass(frozen=True)
class Verdict:
    """Yes, or no with the reason and what would change it. True in a boolean context if yes.

    Attributes:
        ok: True for yes.
        code: One of `CODES`; "ok" for every yes, and for no other verdict.
        reason: Reason of a no, or what was found for a yes. One line.
        remedy: What to install or do to turn a no into a yes; empty if nothing would.

    Raises:
        ValueError: The code is unknown, or contradicts `ok`.
    """

    ok: bool
    code: Code
    reason: str = ""
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES or self.ok != (self.code == "ok"):
            answer = "yes" if self.ok else "no"
            raise ValueError(f"a verdict {answer!r} with the code {self.code!r}")

    @classmethod
    def yes(cls, found: str = "") -> Verdict:
        """Return a yes, optionally with what was found."""
        return cls(True, "ok", found)

    @classmethod
    def no(cls, code: Code, reason: str, remedy: str = "") -> Verdict:
        """Return a no with the code, the reason, and what would change it."""
        return cls(False, code, reason, remedy)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        head = "yes" if self.ok else "no"
        text = f"{head}: {self.reason}" if self.reason else head
        return f"{text} ({self.remedy})" if self.remedy and not self.ok else text


YES: Final = Verdict.yes()
