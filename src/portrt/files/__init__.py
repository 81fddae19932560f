"""Tools for compiled files that need no model code.

`check` and `strip` import no torch; the others import it when they are called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portrt.files.check_file import FileVerdict as FileVerdict
    from portrt.files.check_file import Target as Target
    from portrt.files.check_file import check as check
    from portrt.files.extract_part import extract as extract
    from portrt.files.insert_engine import add_engine as add_engine
    from portrt.files.profiling.measure import profile as profile
    from portrt.files.profiling.result import FileProfile as FileProfile
    from portrt.files.strip_file import strip as strip
    from portrt.files.tune_file import BlockTuning as BlockTuning
    from portrt.files.tune_file import tune as tune
    from portrt.files.verify_engines import Verification as Verification
    from portrt.files.verify_engines import verify as verify

_PUBLIC = {
    "BlockTuning": "portrt.files.tune_file",
    "FileProfile": "portrt.files.profiling.result",
    "FileVerdict": "portrt.files.check_file",
    "Target": "portrt.files.check_file",
    "Verification": "portrt.files.verify_engines",
    "add_engine": "portrt.files.insert_engine",
    "check": "portrt.files.check_file",
    "extract": "portrt.files.extract_part",
    "profile": "portrt.files.profiling.measure",
    "strip": "portrt.files.strip_file",
    "tune": "portrt.files.tune_file",
    "verify": "portrt.files.verify_engines",
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
