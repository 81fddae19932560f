"""Report of what runs on this machine: each block with the verdicts on its stored engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

# Nothing more at the top: `import torch` imports this module.
if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from portrt.runtime.policy import Policy
    from portrt.verdict import Verdict


@dataclass(frozen=True)
class BlockReport:
    """One block on this machine.

    Attributes:
        name: Name of the block.
        node_count: Number of operators in the block.
        runs_as: Backend of the first engine that can run or would be built, "eager", or "" if
            nothing may run the block.
        verdicts: (backend, verdict) of each stored engine, in order of preference; then
            "..., rebuilt" for an engine that would be built.
        runtime: What calls it: "cpp" for an engine that the C++ runtime opens, or "python".
    """

    name: str
    node_count: int
    runs_as: str
    verdicts: tuple[tuple[str, Verdict], ...]
    runtime: str = "python"

    def __str__(self) -> str:
        where = " in C++" if self.runtime == "cpp" else ""
        name = f"{self.runs_as or 'nothing'}{where}"
        lines = [f"{self.name} ({self.node_count} operators) runs as {name}"]
        lines += [f"  {name}: {verdict}" for name, verdict in self.verdicts]
        return "\n".join(lines)


def report(program: ExportedProgram | torch.nn.Module, device: str = "cpu") -> list[BlockReport]:
    """Check every stored engine for tensors on `device`, without opening any.

    If none can run and the policy has rebuild="missing", the engine that would be built is listed
    with a verdict of its own; whether the build succeeds is known only after the first call.

    Args:
        program: A compiled program or its module.
        device: Device type of the inputs: "cpu" or "cuda".
    """
    import torch

    from portrt.format.manifest import decode
    from portrt.runtime.calls import manifests_of
    from portrt.runtime.choice import choose
    from portrt.runtime.policy import CONTEXT, effective
    from portrt.runtime.program_runtime import runtime_of
    from portrt.runtime.select import verdict_of
    from portrt.verdict import Verdict

    torch_device = torch.device(device)
    reports = []
    for text in manifests_of(program):
        manifest = decode(text)
        policy = effective(manifest.policy, CONTEXT.get(), runtime_of(program))
        verdicts = tuple(
            (item.backend, verdict_of(item, torch_device, policy)) for item in manifest.engines
        )
        choice = choose(
            verdicts,
            policy,
            has_source=manifest.source is not None,
            builders=partial(
                _builders, torch_device, policy, [item.backend for item in manifest.engines]
            ),
            compiles=partial(_compiles, torch_device),
        )
        if choice.kind in ("rebuild", "compiled"):
            built = Verdict.yes("it is built from the source at the first call")
            label = "rebuilt" if choice.kind == "rebuild" else "compiled"
            verdicts += ((f"{choice.name}, {label}", built),)
        runtime = "python"
        if policy.runtime == "cpp" and choice.kind == "engine":
            from portrt.runtime.cpp_engines import runtime_of_choice  # rarely needed

            runtime = runtime_of_choice(manifest.engines, verdicts, torch_device)
        found = BlockReport(manifest.name, manifest.node_count, choice.name, verdicts, runtime)
        reports.append(found)
    return reports


def __getattr__(name: str) -> Any:
    """Return `engine_calls`, whose older place this is."""
    if name != "engine_calls":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from portrt.runtime.calls import engine_calls

    return engine_calls


def _builders(device: torch.device, policy: Policy, stored: Sequence[str]) -> Iterator[str]:
    """Return the backends that would build an engine here, in order of preference."""
    from portrt.runtime.rebuilding import rebuilder

    builders = rebuilder()
    return builders.candidates(device, policy, stored) if builders else iter(())


def _compiles(device: torch.device) -> Verdict:
    """Return whether the fallback can compile sources here."""
    from portrt.runtime.rebuilding import can_compile

    return can_compile(device)
