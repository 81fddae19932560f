"""Operators that apply to the real and to the imaginary part separately."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from portrt.compiler.lower.complex_numbers.values import REAL_DTYPES, Pair, Writer, pair_of

aten = torch.ops.aten

# Operator -> positions of the arguments that are values: tensors, real or complex, lists of those,
# or scalars. The other arguments are sizes, masks and indices, and are the same for both parts.
_VALUE_ARGUMENTS: dict[Any, Sequence[int]] = {
    **dict.fromkeys(
        (
            *(aten.alias.default, aten.clone.default, aten.detach.default, aten.empty_like.default),
            *(aten.lift_fresh_copy.default, aten.resolve_conj.default, aten.resolve_neg.default),
            *(aten.reshape.default, aten.view.default, aten._unsafe_view.default),
            *(aten.flatten.using_ints, aten.permute.default, aten.transpose.int, aten.t.default),
            *(aten.expand.default, aten.repeat.default, aten.squeeze.default, aten.squeeze.dim),
            *(aten.squeeze.dims, aten.unsqueeze.default, aten.slice.Tensor, aten.select.int),
            *(aten.narrow.default, aten.split.Tensor, aten.split_with_sizes.default),
            *(aten.unbind.int, aten.chunk.default, aten.unfold.default, aten.diagonal.default),
            *(aten.index.Tensor, aten.index_select.default, aten.gather.default),
            *(aten.flip.default, aten.roll.default, aten.tril.default, aten.triu.default),
            *(aten.constant_pad_nd.default, aten.pad.default),
            *(aten.neg.default, aten.sum.default, aten.sum.dim_IntList, aten.mean.default),
            *(aten.mean.dim, aten.cumsum.default),
            *(aten.zeros_like.default, aten.new_zeros.default, aten.cat.default),
            *(aten.stack.default, aten.scalar_tensor.default),
        ),
        (0,),
    ),
    aten.zeros.default: (),
    aten.empty.memory_format: (),
    aten.full.default: (1,),
    aten.full_like.default: (0, 1),
    aten.new_full.default: (0, 2),
    aten.constant_pad_nd.default: (0, 2),
    aten.pad.default: (0, 3),
    aten.where.self: (1, 2),
    aten.where.ScalarOther: (1, 2),
    aten.where.ScalarSelf: (1, 2),
    aten.masked_fill.Scalar: (0, 2),
    aten.masked_fill.Tensor: (0, 2),
    aten.copy.default: (0, 1),
    aten.slice_scatter.default: (0, 1),
    aten.select_scatter.default: (0, 1),
    aten.scatter.src: (0, 3),
    aten.scatter_add.default: (0, 3),
    aten.index_put.default: (0, 2),
    aten.index_add.default: (0, 3),
}


def _on_both_parts(target: Any, positions: Sequence[int]) -> Callable[..., Any]:
    def rule(writer: Writer, *args: Any, **kwargs: Any) -> Any:
        named = {name: _real_dtype(arg) for name, arg in kwargs.items()}
        re, im = (
            writer.call(
                target,
                *[
                    _part(arg, part) if position in positions else _real_dtype(arg)
                    for position, arg in enumerate(args)
                ],
                **named,
            )
            for part in (0, 1)
        )
        if isinstance(re, list):
            return [Pair(*both) for both in zip(re, im, strict=True)]
        return Pair(re, im)

    return rule


def _part(value: Any, part: int) -> Any:
    if isinstance(value, list):
        return [_part(item, part) for item in value]
    return None if value is None else pair_of(value)[part]


def _real_dtype(value: Any) -> Any:
    return REAL_DTYPES.get(value, value) if isinstance(value, torch.dtype) else value


def _ones(writer: Writer, *args: Any, **kwargs: Any) -> Pair:
    named = {name: _real_dtype(arg) for name, arg in kwargs.items()}
    return Pair(*(writer.call(t, *args, **named) for t in (aten.ones.default, aten.zeros.default)))


def _ones_like(writer: Writer, like: Any, **kwargs: Any) -> Pair:
    named = {name: _real_dtype(arg) for name, arg in kwargs.items()}
    source = pair_of(like).re
    both = (aten.ones_like.default, aten.zeros_like.default)
    return Pair(*(writer.call(target, source, **named) for target in both))


def _to_copy(writer: Writer, x: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    if dtype is not None and not dtype.is_complex:  # the imaginary part is dropped
        if dtype == torch.bool:
            return NotImplemented
        return writer.call(aten._to_copy.default, pair_of(x).re, dtype=dtype, **kwargs)
    real = {} if dtype is None else {"dtype": REAL_DTYPES.get(dtype, dtype)}
    re, im = pair_of(x)
    return Pair(*(writer.call(aten._to_copy.default, part, **real, **kwargs) for part in (re, im)))


RULES: dict[Any, Callable[..., Any]] = {
    **{target: _on_both_parts(target, positions) for target, positions in _VALUE_ARGUMENTS.items()},
    aten.ones.default: _ones,
    aten.ones_like.default: _ones_like,
    aten._to_copy.default: _to_copy,
}
