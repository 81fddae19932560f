"""OpenVINO on the CPU."""

from __future__ import annotations

import torch

from portrt.engines.base import DEFAULT_OPTIONS, OpenOptions, Session
from portrt.engines.openvino.native import is_left_to_parent, library_version
from portrt.engines.openvino.session import OpenVINOSession
from portrt.format.manifest import EngineSpec, Signature
from portrt.targets.backends import BUILT_IN
from portrt.targets.machine import Machine
from portrt.targets.requirements import check_requirements
from portrt.verdict import Verdict
from portrt.weights import WeightsImage


class OpenVINORuntime:
    """Opens engines of OpenVINO, which run on any CPU that it supports."""

    name = "openvino"

    def can_run(self, device: str) -> Verdict:
        """Check whether engines can run here on tensors of a device type."""
        if device != "cpu":
            return Verdict.no(
                "wrong_device",
                f"it runs on CPU tensors, the inputs are on {device}",
                "use CPU tensors",
            )
        return installed()

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        """Check whether a stored engine may run here on tensors of a device."""
        able = self.can_run(device.type)
        facts = Machine(versions={self.name: library_version()})
        return check_requirements(self.name, engine.requires, facts, device.type) if able else able

    def open(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,  # noqa: ARG002  (the CPU)
        options: OpenOptions = DEFAULT_OPTIONS,  # noqa: ARG002
    ) -> Session:
        """Compile an engine for this CPU."""
        session = OpenVINOSession(engine, signature, data, weights)
        sizes = engine.requires.get("nonzero_sizes")
        if not sizes:
            return session
        from portrt.engines.nonzero_sizes import NonzeroSession  # few engines need it

        return NonzeroSession(session, signature, sizes, "OpenVINO")


def installed() -> Verdict:
    """Check whether OpenVINO can be used in this process, by importing it."""
    if is_left_to_parent():
        return Verdict.no(
            "library_missing",
            "OpenVINO cannot be used in a process that was forked after it was used",
            "fork before the first call, or start workers with 'spawn'",
        )
    try:
        import openvino  # noqa: F401

        return Verdict.yes(f"OpenVINO {library_version()}")
    except Exception as err:
        text = (str(err).splitlines() or [""])[0]
        reason = f"openvino cannot be imported: {type(err).__name__}: {text}"
        return Verdict.no("library_missing", reason, BUILT_IN["openvino"].install)
