"""portrt: PyTorch models as inference engines that save as ordinary torch.export programs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portrt import errors as errors
    from portrt import files as files
    from portrt import runtime as runtime
    from portrt.adopt.program import from_plan as from_plan
    from portrt.compiler import compile as compile  # noqa: A004  (the field's name for it)
    from portrt.doctor import doctor as doctor
    from portrt.errors import PortrtError as PortrtError
    from portrt.inputs import Input as Input
    from portrt.package.inspect import inspect as inspect
    from portrt.package.load import load as load
    from portrt.package.save import save as save
    from portrt.settings import Settings as Settings

# Public name -> where it is. Resolved at first use, because torch imports this package at its own
# import, for the operator alone.
_PUBLIC = {
    "Input": "portrt.inputs",
    "PortrtError": "portrt.errors",
    "Settings": "portrt.settings",
    "compile": "portrt.compiler",
    "doctor": "portrt.doctor",
    "errors": "",
    "files": "",
    "from_plan": "portrt.adopt.program",
    "inspect": "portrt.package.inspect",
    "load": "portrt.package.load",
    "runtime": "",
    "save": "portrt.package.save",
}

# What reads files by their JSON alone should not wait for torch.
_WITHOUT_TORCH = frozenset({"errors", "files", "inspect"})

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'portrt' has no attribute {name!r}")
    if name not in _WITHOUT_TORCH:
        import torch  # noqa: F401  (registers the operator, through the torch.backends entry point)

        from portrt.runtime.op import register

        register()  # where autoloading of backends is switched off
    home = _PUBLIC[name]
    value = getattr(import_module(home), name) if home else import_module(f"portrt.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
