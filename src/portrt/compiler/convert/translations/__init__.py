"""Translations to ONNX in addition to those of torch.onnx: built-in ones and the user's.

A translation is what `torch.onnx.export` takes in `custom_translation_table`: an onnxscript
function, or a Python function of ONNX values that uses an opset of onnxscript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch

from portrt import torch_internals

# (operator, translation); hashable, because registries are cached by it.
Translations = tuple[tuple[Any, Callable[..., Any]], ...]


@lru_cache(maxsize=16)
def with_built_in(extra: Translations = ()) -> torch_internals.Translations:
    """Return the built-in translations and `extra`, as `torch_internals` takes them."""
    from portrt.compiler.convert import size_arithmetic
    from portrt.compiler.convert.translations import (
        mapping,
        prefixes,
        quantized,
        recurrent,
        shifts,
        spectral,
    )

    plain = (
        *quantized.built_in(),
        *mapping.built_in(),
        *recurrent.built_in(),
        *size_arithmetic.built_in(),
        *prefixes.TRANSLATIONS,
        *shifts.TRANSLATIONS,
        *extra,
    )
    return (
        *((target, function, False) for target, function in plain),
        *(
            (target, function, target is not torch.ops.aten._fft_r2c.default)
            for target, function in spectral.TRANSLATIONS
        ),
    )


def resolved(named: Iterable[tuple[str, Callable[..., Any]]]) -> Translations:
    """Resolve names such as "mylib.op" or "mylib.op.default" to operators.

    A name without an overload stands for all overloads. Operators that are not registered in this
    process are left out.
    """
    return tuple((overload, function) for name, function in named for overload in _overloads(name))


def _overloads(name: str) -> list[Any]:
    namespace, operator, *rest = name.split(".")
    packet = getattr(getattr(torch.ops, namespace), operator, None)
    if packet is None:
        return []
    known = packet.overloads()
    return [getattr(packet, overload) for overload in (rest or known) if overload in known]
