"""AOTInductor packages, on the CPU and on NVIDIA GPUs."""

from __future__ import annotations

import platform
from functools import lru_cache

import torch

from portrt.engines.base import DEFAULT_OPTIONS, OpenOptions, Session
from portrt.errors import EngineError
from portrt.format.manifest import EngineSpec, Signature
from portrt.targets.cpu_features import cpu_features
from portrt.targets.machine import Machine
from portrt.targets.requirements import check_requirements
from portrt.targets.this_machine import arch_name
from portrt.targets.trust import NOT_TRUSTED
from portrt.verdict import Verdict
from portrt.weights import WeightsImage


class InductorRuntime:
    """Opens packages that AOTInductor compiled: machine code for a kind of CPU, or of GPU."""

    name = "inductor"

    def can_run(self, device: str) -> Verdict:
        if device not in ("cpu", "cuda"):
            return Verdict.no(
                "wrong_device",
                f"it runs on CPU and CUDA tensors, the inputs are on {device}",
                "use CPU or CUDA tensors",
            )
        if device == "cuda" and not torch.cuda.is_available():
            return Verdict.no(
                "no_gpu", "torch has no GPU available here", "use a machine with such a GPU"
            )
        return Verdict.yes(f"torch {torch.__version__}")

    def accepts(self, engine: EngineSpec, device: torch.device) -> Verdict:
        able = self.can_run(device.type)
        if not able:
            return able
        return check_requirements(self.name, engine.requires, _machine(device), device.type)

    def open(
        self,
        engine: EngineSpec,
        signature: Signature,
        data: torch.Tensor,
        weights: WeightsImage | None,
        *,
        device: torch.device,
        options: OpenOptions = DEFAULT_OPTIONS,
    ) -> Session:
        if not options.trusted_host_code:
            raise EngineError(
                f"the inductor engine of {signature.name} is not opened: {NOT_TRUSTED.reason}",
                "trust, which the caller gives and no file",
                NOT_TRUSTED.remedy,
            )
        from portrt.engines.inductor.first_load import load_in_child
        from portrt.engines.inductor.session import InductorSession

        what = f"the inductor engine of {signature.name}"
        load_in_child(what, engine.data.sha256, data, device)
        return InductorSession(engine, signature, data, weights, device)


@lru_cache
def _machine(device: torch.device) -> Machine:
    capability = None
    if device.type == "cuda":
        capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
    return Machine(
        os=platform.system().lower(),
        arch=arch_name(platform.machine()),
        compute_capability=capability,
        versions={"torch": str(torch.__version__)},
        cpu_features=cpu_features(),
    )
