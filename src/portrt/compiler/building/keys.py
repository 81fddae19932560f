"""Cache keys of engines and programs."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from portrt.cache.key import Key
from portrt.compiler.backends.base import Builder, BuildInput
from portrt.compiler.building import fingerprint
from portrt.compiler.building.code_closure import closure_digest, package_digest
from portrt.compiler.building.fingerprint import UnknownValueError
from portrt.compiler.convert.translations import resolved
from portrt.compiler.options.fields import options_of
from portrt.compiler.options.settings import Settings
from portrt.format.memory_map import drop_pages
from portrt.graphs import nested
from portrt.graphs.symbols import ProfileRanges
from portrt.targets.backends import find
from portrt.weights import WeightsImage

if TYPE_CHECKING:
    from portrt.compiler.building.tasks import EngineTask

logger = logging.getLogger(__name__)

# Fields that affect neither the program nor its engines. Every other field is part of a program's
# key, including new ones.
_NOT_IN_PROGRAM = frozenset(
    {
        "cache_built_engines",
        "cache_dir",
        "dryrun",
        "output_format",
        "report",
        "reuse_cached_engines",
    }
)


def engine_key(builder: Builder, material: BuildInput, settings: Settings) -> Key:
    """Return the key of one engine of one block.

    Raises:
        UnknownValueError: A part of the block has no fingerprint, such as an operator that a
            function of the user translates.
    """
    block = material.block
    translated = {target for target, _ in resolved(settings.translations)}
    if any(node.target in translated for node in nested.all_nodes(block.program.graph_module)):
        raise fingerprint.UnknownValueError("it contains a custom translation")
    return Key.of(
        "engine",
        {
            "graph": fingerprint.graph(block.program.graph_module),
            "modules": fingerprint.modules(block.program.graph, settings.autocast_excluded_modules),
            "float32 nodes": [n.name in material.float32_nodes for n in block.program.graph.nodes]
            if material.float32_nodes
            else [],
            "weights": _weights(material),
            "shapes": [
                [spec.to_json() for spec in block.inputs],
                [spec.to_json() for spec in block.outputs],
            ],
            "backend": builder.name,
            "library": builder.can_build(settings).reason,
            "converter": _versions(),
            "process": fingerprint.process_state(),
            "target": target(builder.name),
            "device": block.device.type if builder.input == "program" else None,
            "code": closure_digest(type(builder).__module__),
            **option_parts(builder.name, settings),
        },
    )


def program_key(
    program: ExportedProgram,
    settings: Settings,
    tasks: Sequence[EngineTask],
    profile_ranges: ProfileRanges,
) -> Key:
    """Return the key of a compiled program, from the captured one.

    Raises:
        UnknownValueError: A part of the program has no fingerprint.
    """
    if fingerprint.has_foreign_operators(program.graph_module):
        raise fingerprint.UnknownValueError("an operator is not torch's own")
    if settings.translations or settings.passes:
        raise fingerprint.UnknownValueError("custom translations or passes affect it")
    options = {
        name: repr(_plain(getattr(settings, name)))
        for name in options_of(Settings)
        if name not in _NOT_IN_PROGRAM
    }
    return Key.of(
        "program",
        {
            "graph": fingerprint.graph(program.graph_module),
            "modules": _modules(program, settings, tasks),
            "signature": fingerprint.signature(program),
            "weights": fingerprint.weights(program),
            "examples": fingerprint.examples(program),
            "best sizes": sorted(f"{symbol}: {size}" for symbol, size in profile_ranges.items()),
            "engines": [
                [
                    task.builder.name,
                    task.builder.can_build(task.settings).reason,
                    target(task.builder.name),
                    option_parts(task.builder.name, task.settings),
                ]
                for task in tasks
            ],
            "converter": _versions(),
            "process": fingerprint.process_state(),
            "code": [package_digest(), *_code_of_packages(tasks)],
            **{f"setting {name}": value for name, value in options.items()},
        },
    )


def _code_of_packages(tasks: Sequence[EngineTask]) -> list[str]:
    """Return digests of other packages' builders; portrt's own code is in the package digest."""
    modules = (type(task.builder).__module__ for task in tasks)
    return [closure_digest(name) for name in modules if name.partition(".")[0] != "portrt"]


def _modules(program: ExportedProgram, settings: Settings, tasks: Sequence[EngineTask]) -> Any:
    """Return for each option that names modules which nodes are in them."""
    named = [task.settings.autocast_excluded_modules for task in tasks]
    patterns = (settings.torch_executed_modules, *named)
    return [fingerprint.modules(program.graph, names) for names in patterns]


def option_parts(backend: str, settings: Settings) -> dict[str, Any]:
    """Return a part for every option of an engine that is marked with `rebuilds`.

    Options of other backends are not included; its own may add further parts.
    """
    own = settings.of_backend(backend)
    marked = {
        f"setting {name}": repr(_plain(getattr(options, name)))
        for options in (settings, own)
        for name, option in options_of(type(options)).items()
        if option.rebuilds
    }
    return {**own.key_parts(), **marked}


def _plain(value: Any) -> Any:
    """Convert sets to sorted lists, and functions to their names."""
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if callable(value):
        return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"
    return sorted(value) if isinstance(value, frozenset) else value


def _weights(material: BuildInput) -> Any:
    """Describe names, dtypes, shapes, bytes, and offsets, which an ONNX engine refers to."""
    described: list[Any] = []
    image = WeightsImage(material.image) if material.block.weights else None
    for name in material.block.weights:
        assert image is not None
        dtype, shape, start, size = image.entry(name)
        part = material.image[start : start + size]
        digest = fingerprint.bytes_digest(part)
        drop_pages(part.numpy())
        apart = name in material.block.changeable
        described.append([name, str(dtype), list(shape), start, digest, apart])
    return described


@lru_cache
def _versions() -> dict[str, str]:
    """Return the versions of the libraries that convert a block to ONNX."""
    found = {"torch": str(torch.__version__), "python": f"{sys.version_info[:2]}"}
    for name in ("onnx", "onnx-ir", "onnxscript", "portrt"):
        found[name] = metadata.version(name)
    return found


def target(backend: str) -> dict[str, Any]:
    """Describe operating system, CPU, and, if the backend builds for them, this machine's GPUs."""
    found: dict[str, Any] = {"os": platform.system().lower(), "arch": platform.machine()}
    row = find(backend)
    if row is not None and row.gpus_in_key and torch.cuda.is_available():
        count = torch.cuda.device_count()
        found["gpus"] = sorted({torch.cuda.get_device_capability(i) for i in range(count)})
    return found


def key_or_none(make: Callable[[], Key]) -> Key | None:
    try:
        return make()
    except UnknownValueError as err:
        logger.debug("not cached: %s", err)
        return None
