"""Private parts of Dynamo, which calls portrt as a backend of `torch.compile`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


def argument_source(node: torch.fx.Node) -> str:
    """Return where Dynamo takes an argument of its graph from, such as "L['x']"; "" if unknown."""
    source = getattr(node.meta.get("grapharg"), "source", None)
    name = getattr(source, "name", "")
    return str(name() if callable(name) else name)


@contextlib.contextmanager
def apart_from_dynamo() -> Iterator[None]:
    """Let torch.export run within a backend: with fake tensors and symbols of its own."""
    from torch._guards import tracing

    with tracing(None):
        yield


def as_dynamo_error(err: Exception) -> Exception:
    """Return an error of the same type and text that Dynamo passes on as it is.

    Dynamo wraps other errors of a backend into a RuntimeError.
    """
    from torch._dynamo.exc import ShortenTraceback

    kind = type(type(err).__name__, (type(err), ShortenTraceback), {"__module__": "portrt.errors"})
    made: Exception = kind.__new__(kind, *err.args)
    made.args = err.args
    made.__dict__.update(err.__dict__, first_useful_frame=None)
    return made


def storage_key(tensor: torch.Tensor) -> int:
    """Return a number that tensors with the same memory have in common, fake ones as well."""
    return int(tensor.untyped_storage()._cdata)


def register_backends(backends: Mapping[str, Callable[..., Any]]) -> None:
    """Make backends of `torch.compile` known by name; a name that has one keeps it."""
    from torch._dynamo.backends.registry import list_backends, register_backend

    known = set(list_backends(exclude_tags=None))
    for name, function in backends.items():
        if name not in known:
            register_backend(function, name)
