"""Policy: which engines may run a block, and what happens if none of them can.

Precedence, field by field: context manager `policy`, then file (as compiled or loaded), then
environment, then default.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

# Nothing more at the top: `import torch` imports this module.
from portrt.arguments import FALLBACKS, as_names, check_names
from portrt.errors import SettingsError

ENV_FALLBACK = "PORTRT_FALLBACK"
ENV_ENGINES = "PORTRT_ENGINES"
ENV_REBUILD = "PORTRT_REBUILD"
ENV_TRUST = "PORTRT_TRUST"
ENV_CUDA_GRAPHS = "PORTRT_CUDA_GRAPHS"
ENV_CHECK = "PORTRT_CHECK"
ENV_SELECT = "PORTRT_SELECT"
ENV_BACKGROUND = "PORTRT_BACKGROUND"
ENV_RUNTIME = "PORTRT_RUNTIME"
ENVIRONMENT = (
    *(ENV_FALLBACK, ENV_ENGINES, ENV_REBUILD, ENV_TRUST, ENV_CUDA_GRAPHS, ENV_CHECK),
    *(ENV_SELECT, ENV_BACKGROUND, ENV_RUNTIME),
)
COMPILE_FALLBACK = "compile_fallback"
CHECKS = ("first-open", "off")
REBUILDS = ("never", "missing")
SELECTS = ("first", "measured")
RUNTIMES = ("python", "cpp")


@dataclass(frozen=True)
class Policy:
    """Rules for the choice of an engine; a field that is None defers to the next policy.

    Attributes:
        fallback: If no engine can run, "eager": the source runs in PyTorch; "inductor": it is
            compiled here, checked and cached, or else runs in PyTorch; "error": raise.
        engines: Names of the backends that may run, in no order; an empty tuple allows none.
        rebuild: "missing": if no stored engine can run, one is built from the source, checked and
            cached; "never": nothing is built.
        trust: Permissions: "host-code" permits engines that carry host (CPU) code, "pickle" data of
            a program that only Python's pickle reads, for `load`. A value in a file is ignored.
        cuda_graphs: Number of CUDA graphs that an engine may keep, one for each combination of
            sizes on a stream; 0 for none. Only TensorRT engines are captured.
        check: "first-open": an engine that could not be compared with PyTorch when it was built
            is compared with the source when it is opened, and rejected if the outputs differ;
            "off": it runs unchecked.
        select: "first": the first engine that fits; "measured": the fastest of those that fit, for
            each optimization profile. Times are those in the file if they are of such a machine,
            else they are taken at the first call, and cached.
        background: Whether fallback="inductor" compiles beside calls, which run in PyTorch until
            then; else the first call waits for it.
        runtime: "cpp": engines that `libportrt_runtime` runs are opened and called by it, all
            others as with "python". A value in a file is ignored.

    Raises:
        SettingsError: An unknown fallback, engine name, rebuild, trust, check, select or runtime,
            or a bad value.
    """

    fallback: str | None = None
    engines: tuple[str, ...] | None = None
    rebuild: str | None = None
    trust: tuple[str, ...] | None = None
    cuda_graphs: int | None = None
    check: str | None = None
    select: str | None = None
    background: bool | None = None
    runtime: str | None = None

    def __post_init__(self) -> None:
        fields = (getattr(self, field.name) for field in dataclasses.fields(self))
        if all(value is None for value in fields):  # nothing to check, so import nothing
            return
        from portrt.targets import backends
        from portrt.targets.trust import TRUSTS

        allowed = {"fallback": FALLBACKS, "rebuild": REBUILDS, "check": CHECKS}
        allowed |= {"select": SELECTS, "runtime": RUNTIMES}
        for field, values in allowed.items():
            if getattr(self, field) not in (None, *values):
                raise SettingsError(
                    f"{field} is {getattr(self, field)!r}",
                    f"one of {', '.join(map(repr, values))}",
                    f"choose a {field} from the list",
                )
        engines = self.engines or ()
        if any(not isinstance(name, str) or backends.find(name) is None for name in engines):
            check_names("engine", engines, backends.names())
        check_names("trust", self.trust or (), TRUSTS)
        graphs = self.cuda_graphs
        if graphs is not None and (type(graphs) is not int or graphs < 0):
            raise SettingsError(
                f"cuda_graphs is {graphs!r}",
                "the number of CUDA graphs that an engine may keep, such as 8, or 0 for none",
                "give such a number",
            )
        if self.background is not None and type(self.background) is not bool:
            raise SettingsError(
                f"background is {self.background!r}", "True or False", "give one of them"
            )

    def over(self, other: Policy) -> Policy:
        """Return this policy with its unset fields taken from `other`."""
        names = [field.name for field in dataclasses.fields(self)]
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return dataclasses.replace(other, **given)


# The policy of the innermost `with policy(...)`; None if there is none.
CONTEXT: ContextVar[Policy | None] = ContextVar("portrt_policy", default=None)


@contextmanager
def policy(
    *,
    fallback: str | None = None,
    engines: Sequence[str] | str | None = None,
    rebuild: str | None = None,
    trust: Sequence[str] | str | None = None,
    cuda_graphs: int | None = None,
    check: str | None = None,
    select: str | None = None,
    background: bool | None = None,
    runtime: str | None = None,
) -> Iterator[Policy]:
    """Apply this policy to calls within the `with` block, in this thread or task.

    It takes precedence over enclosing `with` blocks, the file and the environment. None in an
    argument keeps the value in force outside the block.

    Args:
        fallback: "eager", "inductor" or "error".
        engines: Names of the backends that may run.
        rebuild: "missing" or "never".
        trust: "host-code" permits engines that carry host (CPU) code, "pickle" pickled data in
            `load`, and () forbids both.
        cuda_graphs: Number of CUDA graphs that an engine may keep.
        check: "first-open" or "off".
        select: "first" or "measured".
        background: Whether fallback="inductor" compiles beside calls.
        runtime: "python" or "cpp".

    Raises:
        SettingsError: An unknown fallback, engine name, rebuild, trust, check, select or runtime,
            or a bad number.
    """
    trusted = as_names(trust, "trust")
    names = as_names(engines, "engines")
    rest = (cuda_graphs, check, select, background, runtime)
    inner = Policy(fallback, names, rebuild, trusted, *rest).over(CONTEXT.get() or Policy())
    token = CONTEXT.set(inner)
    try:
        yield inner
    finally:
        CONTEXT.reset(token)


@contextmanager
def cuda_graphs(most: int = 8) -> Iterator[Policy]:
    """Capture TensorRT engines as CUDA graphs and replay them within the `with` block.

    Useful for many small kernels, whose launch takes longer than their execution. The first call
    for a combination of sizes runs as usual, the second captures a graph, and later calls copy the
    inputs, replay the graph, and copy the outputs. Engines that cannot be captured run as usual.
    During a capture no other thread may synchronize the device (`torch.cuda.synchronize()`;
    synchronizing a stream or an event is allowed): CUDA would invalidate the capture and fail the
    synchronization.

    Args:
        most: Maximum number of graphs that an engine keeps, one for each combination of sizes on a
            stream; the least recently used one is evicted.

    Raises:
        SettingsError: `most` is not an integer from 0.
    """
    with policy(cuda_graphs=most) as inner:
        yield inner


def effective(
    stored: Mapping[str, Any], context: Policy | None, runtime: str | None = None
) -> Policy:
    """Return the policy in force: `context`, then `stored`, then environment, then default.

    Args:
        stored: Policy in the block's manifest.
        context: Policy of the innermost `with policy(...)`, or None.
        runtime: What `use_python_runtime` of `compile` chose; counts as stored.
    """
    of_program = dataclasses.replace(_of_manifest(stored), runtime=runtime)
    chosen = (context or Policy()).over(of_program).over(_of_environment())
    default = Policy("eager", None, "never", None, None, "off", "first", False, "python")
    return chosen.over(default)


def stored_fallback(fallback: str | None) -> dict[str, str | None]:
    """Return the fields of a manifest's policy for a fallback.

    A reader that does not know the second field runs the source in PyTorch.
    """
    if fallback != "inductor":
        return {"fallback": fallback}
    return {"fallback": "eager", COMPILE_FALLBACK: fallback}


def _of_manifest(stored: Mapping[str, Any]) -> Policy:
    """Read the policy of a manifest.

    Unknown backend names are ignored without an error, and so is a trust entry: a file cannot grant
    permissions to itself.
    """

    from portrt.targets import backends

    names = as_names(stored.get("engines"), "engines")
    if names is not None:
        names = tuple(name for name in names if name in backends.names())
    rebuild = stored.get("rebuild")
    if rebuild not in (None, *REBUILDS):
        rebuild = "never"
    graphs = stored.get("cuda_graphs")
    graphs = graphs if type(graphs) is int and graphs >= 0 else None
    check = stored.get("check")
    check = check if check in CHECKS else None
    select = stored.get("select")
    select = select if select in SELECTS else None
    fallback = stored.get("fallback")
    if fallback == "eager" and stored.get(COMPILE_FALLBACK) == "inductor":
        fallback = "inductor"
    background = stored.get("background")
    background = background if type(background) is bool else None
    return Policy(fallback, names, rebuild, None, graphs, check, select, background)


def _of_environment() -> Policy:
    variables = {name: os.environ.get(name) for name in ENVIRONMENT}
    try:
        return Policy(
            variables[ENV_FALLBACK] or None,
            _listed(variables[ENV_ENGINES]),
            variables[ENV_REBUILD] or None,
            _listed(variables[ENV_TRUST]) or None,
            _number(variables[ENV_CUDA_GRAPHS]),
            variables[ENV_CHECK] or None,
            variables[ENV_SELECT] or None,
            _flag(variables[ENV_BACKGROUND]),
            variables[ENV_RUNTIME] or None,
        )
    except SettingsError as err:
        given = ", ".join(
            f"{name}={value!r}" for name, value in variables.items() if value is not None
        )
        raise SettingsError(
            f"the environment has {given}: {err.happened}",
            err.expected,
            "correct or unset the variable",
        ) from err


def _number(text: str | None) -> int | None:
    if not text:
        return None
    return int(text) if text.strip().isdecimal() else -1  # rejected by Policy


def _flag(text: str | None) -> Any:
    flags: dict[str, bool | None] = {"": None, "0": False, "1": True}
    return flags.get((text or "").strip(), text)  # rejected by Policy


def _listed(text: str | None) -> tuple[str, ...] | None:
    """Split a comma-separated list of names."""
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())
