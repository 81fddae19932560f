"""Structures of arguments and results in a program, as torch's pytree writes them.

torch's reader imports modules by names in them: those of enum members, and of a defaultdict's
factory. And it pastes names of keyword arguments into the Python code of the program.
"""

from __future__ import annotations

import json
from typing import Any

MAX_CHARS = 1 << 20
MAX_DEPTH = 64

_FACTORIES = frozenset({"list", "dict", "int", "float", "bool", "str", "tuple", "set"})
_FACTORY_KEYS = {"default_factory_module", "default_factory_name", "dict_context"}


def is_quotable(text: Any) -> bool:
    """Return whether a text can be put between quotes in Python code as it is."""
    return (
        isinstance(text, str)
        and len(text) <= 4096
        and text.isprintable()
        and not any(char in "'\"\\{}" for char in text)
    )


def treespec_fault(text: str, *, keywords: bool) -> str:
    """Return why a structure is refused, or an empty text.

    Args:
        text: JSON text of `torch.utils._pytree.treespec_dumps`.
        keywords: It is that of (arguments, keyword arguments), whose names go into code.
    """
    if len(text) > MAX_CHARS:
        return f"has {len(text)} characters, of at most {MAX_CHARS}"
    try:
        version, tree = json.loads(text)
        if type(version) is not int:
            return "has no version"
        return _node_fault(tree, 0) or (_keyword_fault(tree) if keywords else "")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as err:
        return f"has an unknown form: {err!r:.80}"


def _node_fault(node: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH} levels"
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if not (kind is None or is_quotable(kind)):
        return f"has the type {kind!r:.80}"
    fault = _factory_fault(context) if kind == "collections.defaultdict" else ""
    fault = fault or _context_fault(context, 0)
    for child in children:
        fault = fault or _node_fault(child, depth + 1)
    return fault


def _factory_fault(context: Any) -> str:
    if isinstance(context, str):
        context = json.loads(context)
    module, name = context["default_factory_module"], context["default_factory_name"]
    if set(context) != _FACTORY_KEYS or module != "builtins" or name not in _FACTORIES:
        return f"has a defaultdict of {module!r:.60}.{name!r:.60}"
    return ""


def _context_fault(value: Any, depth: int) -> str:
    """Judge what a type stores beside its children, most often its keys; texts may be JSON."""
    if depth > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH} levels"
    if value is None or isinstance(value, (bool, int, float)):
        return ""
    if isinstance(value, str):
        parsed = _as_json(value)
        if parsed is not None:
            return _context_fault(parsed, depth + 1)
        return "" if is_quotable(value) else f"has the key {value!r:.80}"
    items = list(value)
    if isinstance(value, dict):
        if "__enum__" in value:
            return "has a member of an enum"
        items += list(value.values())
    for item in items:
        if fault := _context_fault(item, depth + 1):
            return fault
    return ""


def _as_json(text: str) -> Any:
    """Parse a text that is a JSON list, object or text; None for others."""
    if not text.startswith(("[", "{", '"')):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _keyword_fault(tree: Any) -> str:
    """Judge the names of keyword arguments, which become names of parameters."""
    children = tree["children_spec"]
    if len(children) != 2 or children[1]["type"] != "builtins.dict":
        return ""
    names = children[1]["context"]
    for name in json.loads(names) if isinstance(names, str) else names:
        if not (isinstance(name, str) and name.isidentifier()):
            return f"has the keyword {name!r:.80}"
    return ""
