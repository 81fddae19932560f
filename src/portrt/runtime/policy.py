"""Who may run a block: which engines, and what happens when none of them fits.

Of several policies the strongest wins, field by field: the context manager `policy`, then what the
program was compiled or loaded with, then the environment, then the default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

# Nothing more at the top: `import torch` imports this module.
from portrt.errors import SettingsError

ENV_FALLBACK = "PORTRT_FALLBACK"
ENV_ENGINES = "PORTRT_ENGINES"
ENV_REBUILD = "PORTRT_REBUILD"
REBUILDS = ("never", "missing")


@dataclass(frozen=True)
class Policy:
    """None in a field leaves it to the next weaker policy.

    Attributes:
        fallback: "eager": the source runs in PyTorch where no engine fits; "error": refuse.
        engines: Names of the backends that may run, in no order; an empty tuple allows none.
        rebuild: "missing": where no stored engine fits, one is built from the source, checked and
            kept in the cache; "never": nothing is built.

    Raises:
        SettingsError: An unknown fallback, engine name or rebuild.
    """

    fallback: str | None = None
    engines: tuple[str, ...] | None = None
    rebuild: str | None = None

    def __post_init__(self) -> None:
        from portrt.backends import registry
        from portrt.settings import FALLBACKS

        allowed = {"fallback": FALLBACKS, "rebuild": REBUILDS}
        for field, values in allowed.items():
            if getattr(self, field) not in (None, *values):
                raise SettingsError(
                    f"{field} is {getattr(self, field)!r}",
                    f"one of {', '.join(map(repr, values))}",
                    f"choose a {field} from the list",
                )
        for name in self.engines or ():
            if name not in registry.names():
                raise SettingsError(
                    f"a policy names the engine {name!r}",
                    f"one of {', '.join(map(repr, registry.names()))}",
                    "correct the name",
                )

    def over(self, weaker: Policy) -> Policy:
        """This policy, with `weaker` where it leaves a field open."""
        return Policy(
            self.fallback if self.fallback is not None else weaker.fallback,
            self.engines if self.engines is not None else weaker.engines,
            self.rebuild if self.rebuild is not None else weaker.rebuild,
        )


# The policy of the innermost `with policy(...)`; None outside.
CONTEXT: ContextVar[Policy | None] = ContextVar("portrt_policy", default=None)


@contextmanager
def policy(
    *,
    fallback: str | None = None,
    engines: Sequence[str] | str | None = None,
    rebuild: str | None = None,
) -> Iterator[Policy]:
    """Calls within the `with` block follow this policy, in this thread or task.

    Args:
        fallback: "eager" or "error"; None leaves it as it is outside.
        engines: Backends that may run; None leaves it as it is outside.
        rebuild: "missing" or "never"; None leaves it as it is outside.

    Raises:
        SettingsError: An unknown fallback, engine name or rebuild.
    """
    inner = Policy(fallback, _names(engines), rebuild).over(CONTEXT.get() or Policy())
    token = CONTEXT.set(inner)
    try:
        yield inner
    finally:
        CONTEXT.reset(token)


def effective(stored: Mapping[str, Any], context: Policy | None) -> Policy:
    """The policy for a block whose manifest has `stored`, in `context`."""
    chosen = (context or Policy()).over(_of_manifest(stored)).over(_of_environment())
    return chosen.over(Policy(fallback="eager", rebuild="never"))


def _names(engines: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if engines is None:
        return None
    if isinstance(engines, str):
        return (engines,)
    try:
        return tuple(engines)
    except TypeError as err:
        raise SettingsError(
            f"engines is {engines!r}", "names of engines", "give a list of names"
        ) from err


def _of_manifest(stored: Mapping[str, Any]) -> Policy:
    """A name that this portrt does not know allows nothing here, and is no error."""
    from portrt.backends import registry

    names = _names(stored.get("engines"))
    if names is not None:
        names = tuple(name for name in names if name in registry.names())
    rebuild = stored.get("rebuild")
    if rebuild not in (None, *REBUILDS):
        rebuild = "never"
    return Policy(stored.get("fallback"), names, rebuild)


def _of_environment() -> Policy:
    fallback = os.environ.get(ENV_FALLBACK) or None
    rebuild = os.environ.get(ENV_REBUILD) or None
    listed = os.environ.get(ENV_ENGINES)
    names = None if listed is None else [part.strip() for part in listed.split(",") if part.strip()]
    try:
        return Policy(fallback, _names(names), rebuild)
    except SettingsError as err:
        raise SettingsError(
            f"the environment says {ENV_FALLBACK}={fallback!r}, {ENV_ENGINES}={listed!r}, "
            f"{ENV_REBUILD}={rebuild!r}: {err.happened}",
            err.expected,
            "correct or unset the variable",
        ) from err
