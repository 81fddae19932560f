"""Ranges of the integers in a graph: OpenVINO's CPU plugin computes them in 24 to 32 bits.

Seen with 2026.4.1: int64 is int32 inside, comparisons, divisions and sums of integers are made in
float32, which is exact up to 2^24, and 8-bit arithmetic saturates where PyTorch's wraps. So an
integer may be in an engine where its range is known to be within 2^24, and within its dtype. The
inputs of an engine are checked at each call, `MAX_INTEGER` at most; what stays in PyTorch is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from portrt import torch_internals
from portrt.engines.openvino.session import MAX_INTEGER

Range = tuple[float, float]

_aten = torch.ops.aten
EXACT = 1 << 24
_WIDE = (torch.int32, torch.int64)
_UNKNOWN: Range = (-math.inf, math.inf)

_MOVING = {
    *(_aten.alias, _aten.cat, _aten.clone, _aten.constant_pad_nd, _aten.contiguous, _aten.copy),
    *(_aten.detach, _aten.expand, _aten.flatten, _aten.flip, _aten.index, _aten.index_select),
    *(_aten.lift_fresh_copy, _aten.masked_fill, _aten.maximum, _aten.minimum, _aten.narrow),
    *(_aten.permute, _aten.repeat, _aten.reshape, _aten.roll, _aten.select, _aten.slice),
    *(_aten.split, _aten.split_with_sizes, _aten.squeeze, _aten.stack, _aten.t, _aten.transpose),
    *(_aten.tril, _aten.triu, _aten.unbind, _aten.unsqueeze, _aten.view, _aten.where),
    *(_aten.clamp, _aten.clamp_min, _aten.clamp_max, _aten._to_copy, _aten.full_like, _aten.full),
    *(_aten.scalar_tensor, _aten.zeros_like, _aten.ones_like, _aten.chunk, _aten.movedim),
}
# Their operands that are no elements of the result.
_INDICES = {_aten.index: (1,), _aten.index_select: (2,), _aten.where: (0,), _aten.masked_fill: (1,)}
# Their arguments that are sizes or positions, and not numbers.
_WITH_NUMBERS = {
    _aten.clamp: (1, 2),
    _aten.clamp_min: (1,),
    _aten.clamp_max: (1,),
    _aten.constant_pad_nd: (2,),
    _aten.full: (1,),
    _aten.full_like: (1,),
    _aten.masked_fill: (2,),
    _aten.scalar_tensor: (0,),
    _aten.where: (1, 2),
}


def fits(node: torch.fx.Node) -> bool:
    """Return whether the integers of a node are known to be exact in OpenVINO."""
    values = node.meta.get("val")
    tensors = values if isinstance(values, (list, tuple)) else [values]
    dtypes = {t.dtype for t in tensors if isinstance(t, torch.Tensor)}
    whole = [dtype for dtype in dtypes if not dtype.is_floating_point and dtype != torch.bool]
    if not whole:
        return True
    low, high = _computed(node)
    return all(_bounds(dtype)[0] <= low and high <= _bounds(dtype)[1] for dtype in whole)


def _bounds(dtype: torch.dtype) -> Range:
    """Return the range of a dtype that OpenVINO computes exactly."""
    if dtype == torch.bool:
        return 0, 1
    if dtype in _WIDE:
        return -EXACT, EXACT
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max


def _range(value: Any) -> Range:
    """Return the range of an argument; of a node that does not fit that of an engine's input."""
    if isinstance(value, torch.fx.Node):
        known: Range | None = value.meta.get(_KEY)
        if known is None:
            known = _of_node(value)
            value.meta[_KEY] = known
        return known
    if isinstance(value, (bool, int, float)):
        return float(value), float(value)
    return _UNKNOWN


_KEY = "portrt_openvino_range"


def _of_node(node: torch.fx.Node) -> Range:
    value = node.meta.get("val")
    if isinstance(value, (torch.SymInt, int)):
        return _of_size(value)
    if isinstance(value, (list, tuple)):
        dtypes = {item.dtype for item in value if isinstance(item, torch.Tensor)}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    else:
        dtype = value.dtype if isinstance(value, torch.Tensor) else torch.float32
    if dtype.is_floating_point or dtype.is_complex:
        return _UNKNOWN
    if dtype == torch.bool:
        return 0, 1
    allowed = _bounds(dtype)
    if node.op == "call_function":
        low, high = _computed(node)
        if allowed[0] <= low and high <= allowed[1]:
            return low, high
    return (-MAX_INTEGER, MAX_INTEGER) if dtype in _WIDE else allowed


def _of_size(size: Any) -> Range:
    if not isinstance(size, torch.SymInt):
        return float(size), float(size)
    expression = torch_internals.expression_of(size)
    ranges = dict.fromkeys(expression.free_symbols, (0, MAX_INTEGER))
    try:
        found = torch_internals.bounds(expression, ranges)
        return float(found.lower), float(found.upper)
    except Exception:  # torch has no rule for it
        return _UNKNOWN


def _computed(node: torch.fx.Node) -> Range:
    """Return the range of the exact result of a call."""
    if node.op != "call_function":
        return _of_node(node)
    if getattr(node.target, "__name__", "") == "getitem":
        return _range(node.args[0])
    packet: Any = getattr(node.target, "overloadpacket", None)
    rule = _RULES.get(packet)
    try:
        if rule is not None:
            return rule(node)
        return _moved(node, packet) if packet in _MOVING else _UNKNOWN
    except (IndexError, TypeError, ValueError, OverflowError):
        return _UNKNOWN


def _moved(node: torch.fx.Node, packet: Any) -> Range:
    left_out = _INDICES.get(packet, ())
    numbers = _WITH_NUMBERS.get(packet, ())
    found: list[Range] = []
    for index, arg in enumerate(node.args):
        for item in _leaves(arg):
            if isinstance(item, torch.fx.Node):
                is_tensor = isinstance(item.meta.get("val"), (torch.Tensor, list, tuple))
                if index in left_out or not (is_tensor or index in numbers):
                    continue
                found.append(_range(item))
            elif index in numbers and isinstance(item, (bool, int, float)):
                found.append(_range(item))
    if packet in (_aten.constant_pad_nd, _aten.tril, _aten.triu, _aten.zeros_like):
        found.append((0.0, 0.0))
    if packet in (_aten.full_like, _aten.zeros_like, _aten.ones_like):
        found = found[1:]  # the sizes of the first are taken, not its elements
    if packet is _aten.ones_like:
        found.append((1.0, 1.0))
    return _union(found)


def _leaves(arg: Any) -> Iterable[Any]:
    return arg if isinstance(arg, (list, tuple)) else (arg,)


def _union(ranges: Iterable[Range]) -> Range:
    items = list(ranges)
    if not items:
        return _UNKNOWN
    return min(low for low, _ in items), max(high for _, high in items)


def _of_products(a: Range, b: Range) -> Range:
    ends = [x * y for x in a for y in b if not (math.isinf(x) and y == 0)]
    return (min(ends), max(ends)) if len(ends) == 4 and not any(map(math.isnan, ends)) else _UNKNOWN


def _add(node: torch.fx.Node) -> Range:
    scale = float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]
    a, b = _range(node.args[0]), _of_products(_range(node.args[1]), (scale, scale))
    return a[0] + b[0], a[1] + b[1]


def _sub(node: torch.fx.Node) -> Range:
    scale = -float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]
    a, b = _range(node.args[0]), _of_products(_range(node.args[1]), (scale, scale))
    return a[0] + b[0], a[1] + b[1]


def _rsub(node: torch.fx.Node) -> Range:
    a, b = _range(node.args[1]), _range(node.args[0])
    return a[0] - b[1], a[1] - b[0]


def _mul(node: torch.fx.Node) -> Range:
    return _of_products(_range(node.args[0]), _range(node.args[1]))


def _neg(node: torch.fx.Node) -> Range:
    low, high = _range(node.args[0])
    return -high, -low


def _magnitude(value: Any) -> float:
    return max(map(abs, _range(value)))


def _abs(node: torch.fx.Node) -> Range:
    return 0, _magnitude(node.args[0])


def _divided(node: torch.fx.Node) -> Range:
    """Of a division by a number; int8 and uint8 are rounded, where PyTorch truncates."""
    by: Any = node.args[1]
    made = node.meta["val"].dtype
    if isinstance(by, bool) or not isinstance(by, int) or by == 0 or made not in _WIDE:
        return _UNKNOWN
    largest = _magnitude(node.args[0])
    return -largest - 1, largest + 1


def _remainder(node: torch.fx.Node) -> Range:
    by: Any = node.args[1]
    if isinstance(by, bool) or not isinstance(by, int) or by == 0:
        return _UNKNOWN
    if node.meta["val"].dtype not in _WIDE:
        return _UNKNOWN
    return -abs(by), abs(by)


def _bitwise(node: torch.fx.Node) -> Range:
    largest = max(_magnitude(node.args[0]), _magnitude(node.args[1]))
    if math.isinf(largest):
        return _UNKNOWN
    bound = float(1 << int(largest).bit_length())
    low = min(_range(node.args[0])[0], _range(node.args[1])[0])
    return (0 if low >= 0 else -bound), bound


def _bitwise_not(node: torch.fx.Node) -> Range:
    low, high = _range(node.args[0])
    return -high - 1, -low - 1


def _sum(node: torch.fx.Node) -> Range:
    given: Any = node.args[0]
    shape = list(given.meta["val"].shape)
    dims: Any = node.args[1] if len(node.args) > 1 else None
    axes = range(len(shape)) if dims in (None, []) else _leaves(dims)
    count = 1.0
    for axis in axes if shape else ():
        count *= max(_of_size(shape[axis])[1], 1)
    return _of_products(_union([_range(given), (0.0, 0.0)]), (count, count))


def _arange(node: torch.fx.Node) -> Range:
    ends = [_of_argument(arg) for arg in node.args]
    return _union([(0.0, 0.0), *ends])


def _of_argument(value: Any) -> Range:
    if isinstance(value, torch.fx.Node):
        return _range(value)
    return _of_size(value)


_RULES: dict[Any, Callable[[torch.fx.Node], Range]] = {
    _aten.abs: _abs,
    _aten.add: _add,
    _aten.arange: _arange,
    _aten.bitwise_and: _bitwise,
    _aten.bitwise_not: _bitwise_not,
    _aten.bitwise_or: _bitwise,
    _aten.bitwise_xor: _bitwise,
    _aten.cumsum: _sum,
    _aten.div: _divided,
    _aten.floor_divide: _divided,
    _aten.fmod: _remainder,
    _aten.mul: _mul,
    _aten.neg: _neg,
    _aten.remainder: _remainder,
    _aten.rsub: _rsub,
    _aten.sub: _sub,
    _aten.sum: _sum,
}
