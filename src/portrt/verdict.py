"""A yes, or a no with its reason and remedy. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Yes, or no with the reason and what would change it. True in a boolean context when yes.

    Attributes:
        ok: The answer.
        reason: Why not (or, for a yes, what was found). One line.
        remedy: What to install or do to turn a no into a yes; empty when nothing would.
    """

    ok: bool
    reason: str = ""
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        head = "yes" if self.ok else "no"
        text = f"{head}: {self.reason}" if self.reason else head
        return f"{text} ({self.remedy})" if self.remedy and not self.ok else text


YES = Verdict(True)
