"""portrt: PyTorch models as inference engines that save as ordinary torch.export programs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portrt import errors as errors
    from portrt import files as files
    from portrt import runtime as runtime
    from portrt.compiler.compile import compile as compile  # noqa: A004  (the field's name for it)
    from portrt.compiler.inputs import Input as Input
    from portrt.compiler.mutable_module import MutableModule as MutableModule
    from portrt.compiler.options.settings import Settings as Settings
    from portrt.compiler.package.save import save as save
    from portrt.diagnosis import doctor as doctor
    from portrt.errors import PortrtError as PortrtError
    from portrt.files.inspect_file import inspect as inspect
    from portrt.prebuilt.program import from_plan as from_plan
    from portrt.runtime.load import load as load

# Public name -> where it is; resolved at first use, because torch imports this package at its own.
_PUBLIC = {
    "Input": "portrt.compiler.inputs",
    "MutableModule": "portrt.compiler.mutable_module",
    "PortrtError": "portrt.errors",
    "Settings": "portrt.compiler.options.settings",
    "compile": "portrt.compiler.compile",
    "doctor": "portrt.diagnosis",
    "errors": "",
    "files": "",
    "from_plan": "portrt.prebuilt.program",
    "inspect": "portrt.files.inspect_file",
    "load": "portrt.runtime.load",
    "runtime": "",
    "save": "portrt.compiler.package.save",
}

# What reads files by their JSON alone should not wait for torch.
_WITHOUT_TORCH = frozenset({"errors", "files", "inspect"})

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("portrt")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'portrt' has no attribute {name!r}")
    if name not in _WITHOUT_TORCH:
        import torch  # noqa: F401  (registers the operator, through the torch.backends entry point)

        from portrt.runtime.op import register

        register()  # where autoloading of backends is switched off
    home = _PUBLIC[name]
    found = getattr(import_module(home), name) if home else import_module(f"portrt.{name}")
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return list(__all__)
