"""Who may run a block: which engines, and what happens when none of them fits.

Of several policies the strongest wins, field by field: the context manager `policy`, then what the
program was compiled or loaded with, then the environment, then the default.
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
ENVIRONMENT = (ENV_FALLBACK, ENV_ENGINES, ENV_REBUILD, ENV_TRUST, ENV_CUDA_GRAPHS, ENV_CHECK)
CHECKS = ("first-open", "off")
REBUILDS = ("never", "missing")


@dataclass(frozen=True)
class Policy:
    """None in a field leaves it to the next weaker policy.

    Attributes:
        fallback: "eager": the source runs in PyTorch where no engine fits; "error": refuse.
        engines: Names of the backends that may run, in no order; an empty tuple allows none.
        rebuild: "missing": where no stored engine fits, one is built from the source, checked and
            kept in the cache; "never": nothing is built.
        trust: What engines may do that is refused otherwise: "host-code" lets them bring code for
            the CPU along. No file can give this.
        cuda_graphs: Number of CUDA graphs that an engine may keep, one for each combination of
            sizes on a stream; 0 for none. Only TensorRT's engines are recorded.
        check: "first-open": an engine that could not be compared with PyTorch where it was built
            is compared with the source when it is opened, and runs only if it gives its numbers;
            "off": it runs.

    Raises:
        SettingsError: An unknown fallback, engine name, rebuild, trust or check, or a bad number.
    """

    fallback: str | None = None
    engines: tuple[str, ...] | None = None
    rebuild: str | None = None
    trust: tuple[str, ...] | None = None
    cuda_graphs: int | None = None
    check: str | None = None

    def __post_init__(self) -> None:
        fields = (getattr(self, field.name) for field in dataclasses.fields(self))
        if all(value is None for value in fields):  # nothing to look up, and nothing to import
            return
        from portrt.targets import backends
        from portrt.targets.trust import TRUSTS

        allowed = {"fallback": FALLBACKS, "rebuild": REBUILDS, "check": CHECKS}
        for field, values in allowed.items():
            if getattr(self, field) not in (None, *values):
                raise SettingsError(
                    f"{field} is {getattr(self, field)!r}",
                    f"one of {', '.join(map(repr, values))}",
                    f"choose a {field} from the list",
                )
        if any(backends.find(name) is None for name in self.engines or ()):
            check_names("engine", self.engines or (), backends.names())
        check_names("trust", self.trust or (), TRUSTS)
        graphs = self.cuda_graphs
        if graphs is not None and (type(graphs) is not int or graphs < 0):
            raise SettingsError(
                f"cuda_graphs is {graphs!r}",
                "the number of CUDA graphs that an engine may keep, such as 8, or 0 for none",
                "give such a number",
            )

    def over(self, weaker: Policy) -> Policy:
        """This policy, with `weaker` where it leaves a field open."""
        names = [field.name for field in dataclasses.fields(self)]
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return dataclasses.replace(weaker, **given)


# The policy of the innermost `with policy(...)`; None outside.
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
) -> Iterator[Policy]:
    """Calls within the `with` block follow this policy, in this thread or task.

    Args:
        fallback: "eager" or "error"; None leaves it as it is outside.
        engines: Backends that may run; None leaves it as it is outside.
        rebuild: "missing" or "never"; None leaves it as it is outside.
        trust: "host-code" lets engines bring code for the CPU along, and () forbids it; None leaves
            it as it is outside.
        cuda_graphs: Number of CUDA graphs that an engine may keep; None leaves it as it is outside.
        check: "first-open" or "off"; None leaves it as it is outside.

    Raises:
        SettingsError: An unknown fallback, engine name, rebuild, trust or check, or a bad number.
    """
    trusted = as_names(trust, "trust")
    names = as_names(engines, "engines")
    given = Policy(fallback, names, rebuild, trusted, cuda_graphs, check)
    inner = given.over(CONTEXT.get() or Policy())
    token = CONTEXT.set(inner)
    try:
        yield inner
    finally:
        CONTEXT.reset(token)


@contextmanager
def cuda_graphs(most: int = 8) -> Iterator[Policy]:
    """TensorRT's engines are recorded as CUDA graphs and replayed within the `with` block.

    For many small kernels, which take longer to launch than to run. The first call with some sizes
    runs as usual, the second records them, and later ones copy the inputs, replay, and copy the
    outputs. What cannot be recorded runs as usual. While a graph is recorded no other thread may
    wait for the whole GPU (`torch.cuda.synchronize()`; for a stream or an event it may): CUDA ends
    the recording then, and fails the wait.

    Args:
        most: Number of recordings that an engine keeps, one for each combination of sizes on a
            stream; the one that was not used for longest makes room.

    Raises:
        SettingsError: `most` is no such number.
    """
    with policy(cuda_graphs=most) as inner:
        yield inner


def effective(stored: Mapping[str, Any], context: Policy | None) -> Policy:
    """The policy for a block whose manifest has `stored`, in `context`."""
    chosen = (context or Policy()).over(_of_manifest(stored)).over(_of_environment())
    return chosen.over(Policy(fallback="eager", rebuild="never", check="off"))


def _of_manifest(stored: Mapping[str, Any]) -> Policy:
    """A name that this portrt does not know allows nothing here, and is no error.

    What a file says of its own trust is not read.
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
    return Policy(stored.get("fallback"), names, rebuild, cuda_graphs=graphs, check=check)


def _of_environment() -> Policy:
    said = {name: os.environ.get(name) for name in ENVIRONMENT}
    try:
        return Policy(
            said[ENV_FALLBACK] or None,
            _listed(said[ENV_ENGINES]),
            said[ENV_REBUILD] or None,
            _listed(said[ENV_TRUST]) or None,
            _number(said[ENV_CUDA_GRAPHS]),
            said[ENV_CHECK] or None,
        )
    except SettingsError as err:
        given = ", ".join(f"{name}={value!r}" for name, value in said.items() if value is not None)
        raise SettingsError(
            f"the environment says {given}: {err.happened}",
            err.expected,
            "correct or unset the variable",
        ) from err


def _number(text: str | None) -> int | None:
    if not text:
        return None
    return int(text) if text.strip().isdecimal() else -1  # which Policy refuses


def _listed(text: str | None) -> tuple[str, ...] | None:
    """Names between commas."""
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())
