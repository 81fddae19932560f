"""What can be done with a compiled file without the model.

Ask, extend, reduce, take out, verify, profile.

`check` and `strip` import no torch; the others do when they are called and need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portrt.package.edit import strip as strip
    from portrt.package.judge import FileVerdict as FileVerdict
    from portrt.package.judge import Target as Target
    from portrt.package.judge import check as check
    from portrt.profile.measure import profile as profile
    from portrt.profile.result import FileProfile as FileProfile
    from portrt.stored.add_engine import add_engine as add_engine
    from portrt.stored.extract import extract as extract
    from portrt.stored.verify import Verification as Verification
    from portrt.stored.verify import verify as verify

_PUBLIC = {
    "FileProfile": "portrt.profile.result",
    "FileVerdict": "portrt.package.judge",
    "Target": "portrt.package.judge",
    "Verification": "portrt.stored.verify",
    "add_engine": "portrt.stored.add_engine",
    "check": "portrt.package.judge",
    "extract": "portrt.stored.extract",
    "profile": "portrt.profile.measure",
    "strip": "portrt.package.edit",
    "verify": "portrt.stored.verify",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'portrt.files' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
