"""A case: one call of one operator, with its tensors described in short texts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

DTYPES: Mapping[str, torch.dtype] = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
    "c64": torch.complex64,
}
FLOATS = ("f32", "f16", "bf16", "f64")
INTS = ("i64", "i32")
NUMBERS = (*FLOATS, *INTS)
ALL = (*NUMBERS, "bool")
EVERY = (*ALL, "i16", "i8", "u8")

# Part of what the partitioner says where ONNX Runtime refuses a dtype.
NO_KERNEL = "onnxruntime refuses"

# Largest difference: this much of eager's number, plus this much. Whole numbers and bool are exact.
TOLERANCES: Mapping[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-9, 1e-9),
    torch.float32: (2e-5, 2e-5),
    torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (2e-2, 2e-2),
}

# Sizes of a dynamic dimension: of the example, then of the two other calls.
# Of b, s and h the smallest is 1; of n and t, which torch.export may not let be 1, it is 2.
SIZES: Mapping[str, tuple[int, int, int]] = {
    "b": (3, 5, 1),
    "s": (4, 2, 7),
    "h": (8, 12, 9),
    "n": (3, 5, 2),
    "t": (4, 2, 7),
}
SMALLEST: Mapping[str, int] = {"b": 1, "s": 1, "h": 1, "n": 2, "t": 2}
LARGEST = 16

_SPECIAL = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.5, -2.5, 0.5)


@dataclass(frozen=True)
class T:
    """A tensor argument.

    Attributes:
        text: `dtype:sizes`, or sizes alone for the dtype that the table sweeps over; a size is a
            number or one of the letters of `SIZES`, which is then dynamic: "f32:b,3", "i64:"
        low, high: Range of its numbers; whole numbers have both ends.
        special: Its numbers are NaN, infinities, zeros of both signs, and a few others, in turn.
        distinct: No number is there twice along the last dimension.
    """

    text: str
    low: float = -2
    high: float = 2
    special: bool = False
    distinct: bool = False

    def with_dtype(self, dtype: str) -> T:
        if ":" in self.text:
            return self
        return replace(self, text=f"{dtype}:{self.text}")

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.text.partition(":")[0]]

    @property
    def sizes(self) -> list[str]:
        return re.findall(r"\w+", self.text.partition(":")[2])

    def make(self, call: int, generator: torch.Generator) -> torch.Tensor:
        """The tensor of call 0 (the example), 1 or 2."""
        shape = [SIZES[s][call] if s in SIZES else int(s) for s in self.sizes]
        if self.special:
            count = torch.Size(shape).numel()
            turned = [_SPECIAL[(i + call) % len(_SPECIAL)] for i in range(count)]
            return torch.tensor(turned, dtype=self.dtype).reshape(shape)
        if self.distinct:
            order = torch.rand(shape, generator=generator).argsort(-1)
            return (order - 3).to(self.dtype)
        if self.dtype == torch.bool:
            return torch.rand(shape, generator=generator) > 0.5
        if self.dtype.is_floating_point:
            unit = torch.rand(shape, generator=generator, dtype=torch.float64)
            return (unit * (self.high - self.low) + self.low).to(self.dtype)
        low, high = int(self.low), int(self.high)
        return torch.randint(low, high + 1, shape, generator=generator).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Case:
    """One row of the table.

    Attributes:
        op: Name of the operator, "aten.add.Tensor", or of the function, "nn.functional.gelu".
        variant: What this row is about; unique for the operator.
        args, kwargs: Of the call; tensors are `T`s, also within lists.
        function: What is called; None for the operator itself.
        stays: Part of the reason why it stays in PyTorch; "" where it runs in the engine.
        rtx: Part of the reason why tensorrt_rtx does not build it; "" where it does.
        tolerance: (relative, absolute) instead of those of the dtype.
        compares: False where the numbers are not defined (uninitialised, random).
    """

    op: str
    variant: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    function: Callable[..., Any] | None = None
    stays: str = ""
    rtx: str = ""
    tolerance: tuple[float, float] | None = None
    compares: bool = True

    def __str__(self) -> str:
        return f"{self.op}-{self.variant}"

    @property
    def tensors(self) -> list[T]:
        return [item for arg in self.args for item in _leaves(arg)]

    def make(self, call: int) -> list[torch.Tensor]:
        """The tensors of one call; the same in every process."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self}{call}".encode()))
        return [item.make(call, generator) for item in self.tensors]

    @property
    def calls(self) -> int:
        """Calls that differ in size; a static case is called twice, with other numbers."""
        return 3 if any(s in SIZES for t in self.tensors for s in t.sizes) else 2

    def run(self, tensors: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Call it with real or traced tensors; its tensor results."""
        given = iter(tensors)
        args = [_filled(arg, given) for arg in self.args]
        function = self.function or operator(self.op)
        found = function(*args, **self.kwargs)
        items = found if isinstance(found, (tuple, list)) else (found,)
        return tuple(item for item in items if isinstance(item, torch.Tensor))


def operator(name: str) -> Any:
    """The overload of a name such as "aten.add.Tensor"."""
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _leaves(arg: Any) -> list[T]:
    if isinstance(arg, T):
        return [arg]
    return (
        [leaf for item in arg for leaf in _leaves(item)] if isinstance(arg, (list, tuple)) else []
    )


def _filled(arg: Any, given: Any) -> Any:
    if isinstance(arg, T):
        return next(given)
    if isinstance(arg, (list, tuple)) and _leaves(arg):
        return [_filled(item, given) for item in arg]
    return arg


def rows(
    op: str,
    *args: Any,
    over: Iterable[str] = ("f32",),
    lacks: Iterable[str] = (),
    variant: str = "",
    **options: Any,
) -> list[Case]:
    """A row for each dtype of `over`; tensors without a dtype get it.

    Args:
        op: As in `Case`; "add.Tensor" is short for "aten.add.Tensor".
        args: Of the call. Keyword arguments of the call are in `options`, beside those of `Case`.
        over: Names of dtypes.
        lacks: Of these dtypes ONNX Runtime has no kernel: the row stays in PyTorch.
        variant: Instead of one made of the arguments.
        options: The rest.
    """
    own = {name: options.pop(name) for name in _OPTIONS if name in options}
    name = op if "function" in own else f"aten.{op}"
    made = []
    for dtype in over:
        filled = tuple(_with_dtype(arg, dtype) for arg in args)
        text = variant or "-".join(map(_short, (*args, *options.items())))
        left = {"stays": NO_KERNEL} if dtype in lacks else {}
        made.append(Case(name, f"{dtype}-{text}", filled, options, **{**own, **left}))
    return made


_OPTIONS = ("function", "stays", "rtx", "tolerance", "compares")


def _with_dtype(arg: Any, dtype: str) -> Any:
    if isinstance(arg, T):
        return arg.with_dtype(dtype)
    if isinstance(arg, (list, tuple)) and _leaves(arg):
        return [_with_dtype(item, dtype) for item in arg]
    return arg


def _short(value: Any) -> str:
    if isinstance(value, T):
        sizes = value.text or "scalar"
        return sizes.replace(",", "x") + ("!" if value.special else "")
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return f"{value[0]}={_short(value[1])}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_short, value)) + "]"
    return str(value).removeprefix("torch.")
