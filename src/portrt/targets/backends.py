"""Registry of backends, one row each: portrt's own, and those of installed packages.

Imports no torch and no vendor module. A package adds a backend by an entry point of the group
`portrt.backends`, whose value is the "module:attribute" of a `BackendInfo`; importing that module
must not import torch. Entry points are read at first use, once per process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module, metadata
from typing import Any, Literal, get_args

logger = logging.getLogger(__name__)

ENTRY_POINTS = "portrt.backends"

# Required relation between the version of a library that runs an engine and the one that built it.
#   exact: every number that both versions have is equal.
#   same_release: the first three numbers are equal.
#   at_least: the required version or newer.
#   tensorrt: the rules in `targets.tensorrt_rules`.
VersionRule = Literal["exact", "same_release", "at_least", "tensorrt"]


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """One backend: its name, its requirements, and the location of its code.

    Attributes:
        name: Name in `engines=` and in files.
        runtime: "module:Class" of its `engines.base.EngineRuntime`.
        builder: "module:Class" of its `compiler.backends.base.Builder`; "" if it only runs engines.
        options: "module:Class" of its own `compiler.options.fields.BackendOptions` for `compile`;
            "" for none.
        libraries: Python modules, any of which runs its engines, in order of preference. The first
            is also the key of the version in an engine's `requires`. If empty, every version is
            accepted.
        distributions: Library -> its names in package indexes, newest first; a library that is
            missing here is distributed under its own name.
        version_rule: Versions of a library that run an engine.
        install: Command that installs the library.
        tf32: Whether it multiplies float32 in TF32 on a GPU, which widens the tolerance of checks.
        gpus_in_key: Whether engines depend on the GPUs of the machine that builds them.
        documentation: URL of the library's documentation.
        by_default: Whether `compile` builds its engines where `engines=` is not given.

    Raises:
        ValueError: The name or the version rule is invalid.
    """

    name: str
    runtime: str
    builder: str = ""
    options: str = ""
    libraries: tuple[str, ...] = ()
    distributions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    version_rule: VersionRule = "at_least"
    install: str = ""
    tf32: bool = False
    gpus_in_key: bool = False
    documentation: str = ""
    by_default: bool = True

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"{self.name!r} is no name of a backend: letters, digits and _")
        if self.version_rule not in get_args(VersionRule):
            rules = ", ".join(get_args(VersionRule))
            raise ValueError(f"the version rule {self.version_rule!r} is none of {rules}")


# Libraries that run TensorRT engines, in order of preference.
RUNTIMES = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch")

_ROWS = (
    BackendInfo(
        name="tensorrt",
        runtime="portrt.engines.tensorrt.runtime:TensorRTRuntime",
        builder="portrt.compiler.backends.tensorrt.tensorrt:TensorRTBuilder",
        options="portrt.compiler.backends.tensorrt.options:TensorRTOptions",
        libraries=RUNTIMES,
        distributions={
            name: (
                *(f"{name}-cu{cuda}-bindings" for cuda in (13, 12, 11)),
                f"{name}-bindings",
                name,
            )
            for name in RUNTIMES
        },
        version_rule="tensorrt",
        install="pip install tensorrt",
        tf32=True,
        gpus_in_key=True,
        documentation="https://docs.nvidia.com/deeplearning/tensorrt/",
    ),
    # Source of the rule: TensorRT-RTX documentation, "Engine compatibility": engines are not
    # compatible between releases. Windows and Linux may share one ("CPU-only AOT and TensorRT-RTX
    # engines"). The fourth number is a build of the same release.
    BackendInfo(
        name="tensorrt_rtx",
        runtime="portrt.engines.tensorrt.runtime:TensorRTRTXRuntime",
        builder="portrt.compiler.backends.tensorrt.tensorrt_rtx:TensorRTRTXBuilder",
        options="portrt.compiler.backends.tensorrt.options:TensorRTOptions",
        libraries=("tensorrt_rtx",),
        distributions={
            "tensorrt_rtx": (
                "tensorrt-rtx-cu13-bindings",
                "tensorrt-rtx-cu12-bindings",
                "tensorrt_rtx",
            ),
        },
        version_rule="same_release",
        install="pip install tensorrt-rtx-cu13",
        tf32=True,
        gpus_in_key=True,
        documentation="https://docs.nvidia.com/deeplearning/tensorrt-rtx/",
    ),
    BackendInfo(
        name="onnxruntime",
        runtime="portrt.engines.onnxruntime.runtime:OnnxRuntimeRuntime",
        builder="portrt.compiler.backends.onnxruntime.build:OnnxRuntimeBuilder",
        libraries=("onnxruntime",),
        distributions={
            "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
        },
        install="pip install onnxruntime",
        documentation="https://onnxruntime.ai/docs/",
    ),
    BackendInfo(
        name="openvino",
        runtime="portrt.engines.openvino.runtime:OpenVINORuntime",
        builder="portrt.compiler.backends.openvino.build:OpenVINOBuilder",
        libraries=("openvino",),
        install="pip install 'portrt[openvino]'",
        documentation="https://docs.openvino.ai/",
        by_default=False,
    ),
    # A package links to torch's libraries, whose interface is stable within a release alone.
    BackendInfo(
        name="inductor",
        runtime="portrt.engines.inductor.runtime:InductorRuntime",
        builder="portrt.compiler.backends.inductor.build:InductorBuilder",
        options="portrt.compiler.backends.inductor.options:InductorOptions",
        libraries=("torch",),
        version_rule="exact",
        gpus_in_key=True,
        by_default=False,
        documentation="https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html",
    ),
)

# In the default order of preference.
BUILT_IN = {row.name: row for row in _ROWS}

# The module that builds engines from stored sources, for rebuild="missing". The runtime imports it
# by name and works without it if it is not installed.
REBUILDER = "portrt.compiler.parts.rebuild"

# The module that writes programs, with which modules are pickled; found in the same way.
WRITER = "portrt.compiler.package.save"


def known() -> Sequence[BackendInfo]:
    """Return all backends in the default order of preference: portrt's own, then others by name."""
    return (*BUILT_IN.values(), *_installed().values())


def names() -> tuple[str, ...]:
    """Return the names of all backends, in the default order of preference."""
    return tuple(row.name for row in known())


def default_names() -> tuple[str, ...]:
    """Return the names of the backends that engines are built for where none is named."""
    return tuple(name for name in names() if (row := find(name)) is None or row.by_default)


def find(name: str) -> BackendInfo | None:
    """Return the row of a backend, or None; reads entry points if the name is not built in."""
    return BUILT_IN.get(name) or _installed().get(name)


def distributions() -> dict[str, tuple[str, ...]]:
    """Return each library that runs engines -> its names in package indexes."""
    return {
        library: row.distributions.get(library, (library,))
        for row in reversed(known())  # portrt's own rows take precedence
        for library in row.libraries
    }


def known_libraries() -> Sequence[str]:
    """Return the libraries whose versions a target description may state."""
    return tuple(dict.fromkeys(library for row in known() for library in row.libraries))


def resolve(path: str) -> Any:
    """Import and return the object at "module:attribute"."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


@lru_cache
def _installed() -> dict[str, BackendInfo]:
    """Return the rows of installed packages; a broken one is skipped with a warning."""
    found: dict[str, BackendInfo] = {}
    entries = metadata.entry_points(group=ENTRY_POINTS)
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
        try:
            row = entry.load()
            _check(row, entry.name, found)
        except Exception as err:  # code of another package
            logger.warning(
                "the backend %r is skipped: its entry point %r is broken: %s: %s",
                entry.name,
                entry.value,
                type(err).__name__,
                err,
            )
            continue
        found[row.name] = row
    return found


def _check(row: object, name: str, found: Mapping[str, BackendInfo]) -> None:
    if not isinstance(row, BackendInfo):
        raise TypeError(f"it is a {type(row).__name__}, not a BackendInfo")
    if row.name != name:
        raise ValueError(f"its row has the name {row.name!r}")
    if name in BUILT_IN:
        raise ValueError("a backend of portrt has this name")
    if name in found:
        raise ValueError("another package has a backend of this name")
