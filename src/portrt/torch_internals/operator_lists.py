"""What torch does for all operators at each decomposition, which takes longer than a small program.

It lists those that are composite, and registers kernels for them. The lists are the same until an
operator is registered, and a registration is slow for its annotations alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from functools import cache, lru_cache
from typing import Any

import torch
import torch.export.exported_program as exported_program
from torch._export import utils

# Their users; set in a context, and put back whatever other threads do.
_decomposition: Any = exported_program
_operator: Any = torch._ops.OpOverload
_theirs: Any = torch._ops.OpOverload.py_impl


def registered() -> Hashable:
    """Return what differs once an operator, or a decomposition, has been registered."""
    composite = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
    return (*composite, *torch.ops._dir), len(torch._decomp.decomposition_table)


@contextlib.contextmanager
def shared_operator_lists() -> Iterator[None]:
    """Make `run_decompositions` use the lists of earlier calls, in a context."""
    composite, is_kept = _lists(registered())
    try:
        _decomposition._collect_all_valid_cia_ops = composite
        _decomposition._is_preservable_cia_op = is_kept
        _operator.py_impl = _register
        yield
    finally:
        _decomposition._collect_all_valid_cia_ops = utils._collect_all_valid_cia_ops
        _decomposition._is_preservable_cia_op = utils._is_preservable_cia_op
        _operator.py_impl = _theirs


@lru_cache(maxsize=1)
def _lists(_registered: Hashable) -> tuple[Callable[[], Any], Callable[[Any], bool]]:
    """Return torch's functions of the operators that are composite and can be kept, cached."""
    return cache(utils._collect_all_valid_cia_ops), cache(utils._is_preservable_cia_op)


def _register(operator: Any, key: Any) -> Callable[[Any], Any]:
    """Register a kernel as torch does, without its annotations, which it evaluates each time."""
    if not isinstance(key, torch._C.DispatchKey) or key == torch._C.DispatchKey.Python:
        theirs: Callable[[Any], Any] = _theirs(operator, key)
        return theirs

    def register(kernel: Any) -> Any:
        if key in operator.py_kernels:  # torch raises
            return _theirs(operator, key)(kernel)
        operator.py_kernels[key] = kernel
        operator._dispatch_cache.clear()
        return kernel

    return register
