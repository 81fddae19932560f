"""Tasks: the engines to build, with their settings."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from portrt import torch_internals
from portrt.compiler.backends import registry
from portrt.compiler.backends.base import Builder
from portrt.compiler.building.precision import reason_for_float32
from portrt.compiler.options.settings import EngineRequest, Settings
from portrt.engines import registry as runtimes
from portrt.errors import BackendUnavailableError, BuildError
from portrt.graphs import nested
from portrt.targets import backends
from portrt.verdict import YES, Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineTask:
    """One engine to build for each block.

    Attributes:
        builder: Its builder.
        settings: Its settings.
        refused: Name of a node -> the reason, for nodes that the builder refused in a build.
        deadline: When `time.perf_counter` is later, the engine is not built beside others.
    """

    builder: Builder
    settings: Settings
    refused: dict[str, Verdict] = field(default_factory=dict)
    deadline: float = math.inf

    def too_late(self) -> BuildError | None:
        """Return why the engine is left out, if the time for candidates is spent."""
        if time.perf_counter() < self.deadline:
            return None
        return BuildError(
            f"the {self.builder.name} engine is left out: the time for candidates is spent",
            f"candidates that are built within {self.settings.optimize_budget:g} s",
            "give a larger optimize_budget",
        )

    def supports(
        self, node: torch.fx.Node, translated: Callable[[torch.fx.Node], Verdict]
    ) -> Verdict:
        """Return whether the engine can hold a node.

        Args:
            node: The node.
            translated: Returns whether it has a translation to ONNX.
        """
        if node.name in self.refused:
            return self.refused[node.name]
        verdict = translated(node) if self.builder.input == "onnx" else YES
        return verdict and self.builder.supports(node)

    def refusals(
        self, module: torch.fx.GraphModule, translated: Callable[[torch.fx.Node], Verdict]
    ) -> dict[str, Verdict]:
        """Return name -> reason of the nodes of a block that the engine cannot hold."""
        nodes = (
            node
            for node in nested.all_nodes(module)
            if nested.is_operator(node) and not torch_internals.is_symbolic_call(node)
        )
        found = {node.name: self.supports(node, translated) for node in nodes}
        return {name: verdict for name, verdict in found.items() if not verdict}


def default_names(device: str) -> tuple[str, ...]:
    """Return the backends to build for where none is named, in order of preference.

    Those that are built by default; where none of their engines runs on the device of the inputs,
    the first of the others that builds and runs there.

    Args:
        device: Device type of the inputs.
    """
    default = backends.default_names()
    if any(_works(name, device) for name in default) or device == "cpu":
        return default
    others = (name for name in backends.names() if name not in default)
    return next(((name,) for name in others if _works(name, device)), default)


def _works(name: str, device: str) -> bool:
    """Return whether engines of a backend can be built here, and run on a device."""
    return bool(runtimes.runtime(name).can_run(device) and registry.builder(name).can_build())


def tasks_for(settings: Settings, device: str = "cpu") -> list[EngineTask]:
    """Return the requested engines that can be built here, in order of preference.

    Args:
        settings: The settings of the compilation.
        device: Device type of the inputs, for the choice where no engine is requested.

    Raises:
        BackendUnavailableError: A name is unknown, none of them can be built here, or one cannot
            although `require_engines` is set.
    """
    optimizes = settings.optimize_for is not None
    deadline = time.perf_counter() + settings.optimize_budget if optimizes else math.inf
    requests = settings.engines or tuple(EngineRequest(name) for name in default_names(device))
    found: list[EngineTask] = []
    refused: list[str] = []
    remedies: list[str] = []
    for request in requests:
        builder = registry.builder(request.backend)
        own = request.settings(settings)
        verdict = builder.can_build(own)
        if verdict:
            found.append(EngineTask(builder, own, deadline=deadline))
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
