"""`optimize_for`: builds for every backend that runs here, and orders the engines by time."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from portrt.compiler.backends import registry as builders
from portrt.compiler.options.settings import EngineRequest, Settings
from portrt.compiler.plan import Block, Engine
from portrt.engines import registry
from portrt.engines.base import OpenOptions, Session
from portrt.errors import EngineError
from portrt.runtime.open_engine import open_engine
from portrt.runtime.timing import Figure, conditions, measure, ratios, table
from portrt.targets import backends
from portrt.weights import WeightsImage

logger = logging.getLogger(__name__)

_SHARE = 0.05  # of the time of building, that measuring may take
_LEAST_S = 0.3


def budget(building_s: float) -> float:
    """Return the seconds for measuring, after that many seconds of building."""
    return max(_LEAST_S, _SHARE * building_s)


def with_candidates(settings: Settings, device: str) -> Settings:
    """Return the settings with every backend that builds and runs here, unless engines are named.

    Args:
        settings: Settings of the compilation.
        device: Type of the device of the inputs.
    """
    if settings.optimize_for is None or settings.engines is not None:
        return settings
    found = [
        name
        for name in backends.names()
        if registry.runtime(name).can_run(device) and builders.builder(name).can_build(settings)
    ]
    if not found:
        return settings
    logger.info("optimize_for=%r: candidates are %s", settings.optimize_for, ", ".join(found))
    return dataclasses.replace(settings, engines=tuple(map(EngineRequest, found)))


def device_of(values: Sequence[Any]) -> torch.device:
    """Return the device of the first tensor; the CPU if there is none."""
    tensors = (value for value in values if isinstance(value, torch.Tensor))
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def in_order(
    block: Block,
    engines: Sequence[Engine],
    image: torch.Tensor,
    settings: Settings,
    device: torch.device,
    budget_s: float,
) -> list[Engine]:
    """Return a block's engines, best first, with the figures in their entries.

    Engines that cannot run here, or fail, are the last.

    Args:
        block: The block.
        engines: Its engines, whose results were compared with PyTorch's.
        image: The weights image.
        settings: Settings of the compilation; `optimize_for` is set.
        device: Device of the inputs.
        budget_s: Seconds for measuring.
    """
    goal: Any = settings.optimize_for
    if goal == "size":
        sizes = [_bytes_of(engine) for engine in engines]
        return [
            _with(engines[place], {"goal": goal, "bytes": sizes[place]})
            for place in sorted(range(len(engines)), key=sizes.__getitem__)
        ]
    sessions: dict[str, Session] = {}
    labels = _labels(engines)
    for label, engine in zip(labels, engines, strict=True):
        session = _opened(block, engine, image, device)
        if session is not None:
            sessions[label] = session
    figures = measure(block.signature, sessions, goal, device=device, budget_s=budget_s)
    if not figures:
        return list(engines)
    Console(highlight=False, markup=False).print(table(block.name, figures, goal), soft_wrap=True)
    return _ordered(engines, labels, figures, conditions(goal))


def _ordered(
    engines: Sequence[Engine],
    labels: Sequence[str],
    figures: dict[str, list[Figure]],
    under: dict[str, Any],
) -> list[Engine]:
    mean = ratios(figures)
    made = []
    for label, engine in zip(labels, engines, strict=True):
        if label in figures:
            sizes = [figure.to_json() for figure in figures[label]]
            engine = _with(engine, {**under, "ratio": round(mean[label], 3), "sizes": sizes})
        made.append((mean.get(label, float("inf")), engine))
    return [engine for _, engine in sorted(made, key=lambda item: item[0])]


def _with(engine: Engine, measured: dict[str, Any]) -> Engine:
    return dataclasses.replace(engine, build={**engine.build, "measured": measured})


def _labels(engines: Sequence[Engine]) -> list[str]:
    """Return a name for each engine, with a number where a backend has several."""
    names = [engine.backend for engine in engines]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _bytes_of(engine: Engine) -> int:
    inner = engine.parts.engines.values() if engine.parts else ()
    return len(engine.data) + sum(len(part.data) for part in inner)


def _opened(
    block: Block, engine: Engine, image: torch.Tensor, device: torch.device
) -> Session | None:
    """Open an engine as a deployed process does; None if it cannot run here."""
    spec, blobs = engine.stored()
    if not registry.runtime(engine.backend).accepts(spec, device):
        return None
    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in blobs]
    try:
        return open_engine(
            spec,
            block.signature,
            lambda blob: tensors[blob.index],
            WeightsImage(image),
            device=device,
            options=OpenOptions(trusted_host_code=True),
        )
    except EngineError as err:
        logger.warning("the %s engine of %s is not timed: %s", engine.backend, block.name, err)
        return None
