"""Operators that a program may call: a closed list, and those that other libraries registered.

torch's reader resolves a text such as "torch.os.system" by attributes, and takes whatever can be
called.
"""

from __future__ import annotations

import re
from functools import lru_cache


def names(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_NAME = r"_?[A-Za-z0-9]\w*"
_SPECIAL = r"__i?(?:and|or|xor|lshift|rshift)__"
_OVERLOADED = re.compile(
    rf"torch\.ops\.({_NAME})\.((?!__\w*__\.)_?{_NAME}|{_SPECIAL})\.({_NAME})", re.ASCII
)
_HIGHER_ORDER = re.compile(r"torch\.ops\.higher_order\.(\w+)", re.ASCII)
_SYMBOLIC = re.compile(r"torch\.(_?sym_[a-z0-9_]+)", re.ASCII)

# Namespaces of torch's own that a program has no use for: files, sockets, memory, other processes.
_CLOSED_NAMESPACES = names("""
    _c10d_functional _c10d_functional_autograd _dtensor _native _test c10d debug_mode_ops debugprims
    dist export fsdp inductor inductor_prims mtia prim profiler rngprims static_runtime streams
    symm_mem
""")
# Operators of `aten` that read or write files, print, or change the state of the process.
_OTHER_OPERATORS = names("""
    from_file save load _print warn manual_seed seed set_grad_enabled wait to_here
    _cufft_set_plan_cache_max_size _cufft_clear_plan_cache
""")

_OPERATOR_FUNCTIONS = names("""
    add sub mul floordiv truediv mod pow neg pos abs eq ne lt le gt ge and_ or_ xor invert not_
    lshift rshift
""")
_MATH_FUNCTIONS = names("trunc floor ceil sqrt")
_PREDISPATCH = "torch._functorch.predispatch."
_PREDISPATCH_FUNCTIONS = names("""
    _add_batch_dim _remove_batch_dim _vmap_increment_nesting _vmap_decrement_nesting
""")
# Those that call the graphs, and the operators, that they are given.
_HIGHER_ORDER_OPERATORS = names("""
    cond while_loop while_loop_stack_output scan map_impl associative_scan out_dtype strict_mode
    wrap wrap_activation_checkpoint tag_activation_checkpoint wrap_with_set_grad_enabled
    wrap_with_autocast hints_wrapper invoke_subgraph auto_functionalized auto_functionalized_v2
    with_effects flex_attention
""")


@lru_cache(maxsize=4096)
def operator_fault(target: str) -> str:
    """Return why a program may not call this operator, or an empty text."""
    if len(target) > 400:
        return "is too long"
    module, _, function = target.partition(".")
    if module == "_operator":
        return _not_in(function, _OPERATOR_FUNCTIONS)
    if module == "math":
        return _not_in(function, _MATH_FUNCTIONS)
    if target.startswith(_PREDISPATCH):
        return _not_in(target[len(_PREDISPATCH) :], _PREDISPATCH_FUNCTIONS)
    if _SYMBOLIC.fullmatch(target):
        return ""
    if found := _HIGHER_ORDER.fullmatch(target):
        return _not_in(found[1], _HIGHER_ORDER_OPERATORS)
    return _overload_fault(target)


def _overload_fault(target: str) -> str:
    found = _OVERLOADED.fullmatch(target)
    if found is None:
        return "is no operator"
    namespace, operator, _ = found.groups()
    if namespace in _CLOSED_NAMESPACES or namespace == "higher_order":
        return f"is of {namespace}, whose operators do more than compute"
    if namespace == "aten" and operator in _OTHER_OPERATORS:
        return "does more than compute"
    return ""


def _not_in(name: str, known: frozenset[str]) -> str:
    return "" if name in known else "is in no list of what a program may call"
