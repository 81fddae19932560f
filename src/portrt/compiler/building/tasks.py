"""Tasks: the engines to build, with their settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from portrt.compiler.backends import registry
from portrt.compiler.backends.base import Builder
from portrt.compiler.building.precision import reason_for_float32
from portrt.compiler.options.settings import EngineRequest, Settings
from portrt.errors import BackendUnavailableError
from portrt.targets import backends

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineTask:
    """One engine to build for each block: its builder and its settings."""

    builder: Builder
    settings: Settings


def tasks_for(settings: Settings) -> list[EngineTask]:
    """Return the requested engines that can be built here, in order of preference.

    Raises:
        BackendUnavailableError: A name is unknown, none of them can be built here, or one cannot
            although `require_engines` is set.
    """
    requests = settings.engines or tuple(EngineRequest(name) for name in backends.names())
    found: list[EngineTask] = []
    refused: list[str] = []
    remedies: list[str] = []
    for request in requests:
        builder = registry.builder(request.backend)
        own = request.settings(settings)
        verdict = builder.can_build(own)
        if verdict:
            found.append(EngineTask(builder, own))
            reason = reason_for_float32(builder.name, own.precision)
            if reason:
                logger.warning("%s engines stay in float32: %s", builder.name, reason)
            continue
        refused.append(f"{request.backend}: {verdict}")
        remedies.append(verdict.remedy)
        if settings.engines is not None:
            logger.warning("no %s engine will be built: %s", request.backend, verdict)
    lines = "".join(f"\n    {line}" for line in refused)
    remedy = " or ".join(remedy for remedy in remedies if remedy) or "see `portrt doctor`"
    if not found:
        raise BackendUnavailableError(
            f"none of the engines can be built here:{lines}",
            "at least one backend that can build on this machine",
            remedy,
        )
    if refused and settings.require_engines:
        raise BackendUnavailableError(
            f"engines cannot be built here:{lines}",
            "every requested engine, because of require_engines=True",
            remedy,
        )
    return found
