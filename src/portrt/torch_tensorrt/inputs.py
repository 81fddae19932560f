"""`Input` with Torch-TensorRT's arguments; a `portrt.Input` otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from portrt.compiler.inputs import Input as PortrtInput
from portrt.errors import SettingsError
from portrt.torch_tensorrt.devices import torch_device
from portrt.torch_tensorrt.enums import dtype as dtype_enum
from portrt.torch_tensorrt.enums import memory_format

_BOUNDS = ("min_shape", "opt_shape", "max_shape")


class Input(PortrtInput):
    """The dtype and the shape, or range of shapes, of one tensor argument.

    Args:
        shape: The static shape. Pass either this or all of `min_shape`, `opt_shape`, `max_shape`.
        min_shape, opt_shape, max_shape: The range, as in `portrt.Input`. Dynamic dimensions of one
            field name of named tuples have the same size, in all inputs.
        dtype: A dtype of torch, of `torch_tensorrt.dtype` or of numpy, or the name of one.
        format: Memory format of the example; engines take tensors of any strides.
        tensor_domain: Half-open range [low, high) of the values of the example.
        torch_tensor: The example itself.
        is_shape_tensor: Whether the shapes are values of an int64 tensor. The tensor is as long as
            they are, and the example has those of `opt_shape`.
        name: The argument's name in messages.
        shared_dims: Axis -> name, as in `portrt.Input`.
        profiles: Shapes of each optimization profile: mappings with `min_shape`, `opt_shape` and
            `max_shape`, or triples.
        shape_ranges: A list of one triple of shapes, as `profiles`.
        device: Device of the example; that of the model, or of `compile(device=)`, when None.

    Raises:
        SettingsError: The shapes contradict each other, or the dtype or format is unknown.
    """

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        min_shape: Sequence[int] | None = None,
        opt_shape: Sequence[int] | None = None,
        max_shape: Sequence[int] | None = None,
        dtype: Any = None,
        format: Any = torch.contiguous_format,  # noqa: A002  (Torch-TensorRT's name)
        tensor_domain: tuple[float, float] | None = None,
        torch_tensor: torch.Tensor | None = None,
        is_shape_tensor: bool = False,
        name: str | None = None,
        shared_dims: Mapping[int, str] | None = None,
        profiles: Sequence[Any] | None = None,
        shape_ranges: Sequence[Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        profiles = profiles if shape_ranges is None else shape_ranges
        if torch_tensor is not None:
            dtype = torch_tensor.dtype if dtype is None else dtype
            device = torch_tensor.device if device is None else device
            if (shape, min_shape, opt_shape, max_shape, profiles) == (None,) * 5:
                shape = tuple(torch_tensor.shape)
        self.is_shape_tensor = is_shape_tensor
        self.torch_tensor = torch_tensor
        self.format = memory_format.try_from(format)
        if self.format is None:
            raise SettingsError(
                f"the format of an Input is {format!r}",
                "torch.contiguous_format, torch.channels_last or torch.channels_last_3d",
                "leave the format out: engines take tensors of any strides",
            )
        self.values: tuple[int, ...] = ()
        if is_shape_tensor:
            shown = opt_shape if shape is None else shape
            self.values = tuple(int(size) for size in shown or ())
            shape, min_shape, opt_shape, max_shape = (len(self.values),), None, None, None
            dtype = torch.int64 if dtype is None else dtype
        self.is_placed = device is not None
        super().__init__(
            shape,
            min_shape=min_shape,
            opt_shape=opt_shape,
            max_shape=max_shape,
            profiles=None if profiles is None else [_triple(item) for item in profiles],
            dtype=torch_dtype(torch.float32 if dtype is None else dtype),
            name=name or None,
            shared_dims=shared_dims or _names_of(min_shape, max_shape),
            tensor_domain=tensor_domain,
            device="cpu" if device is None else torch_device(device),
        )

    @property
    def shape(self) -> Any:
        """The static shape, or a mapping with the three shapes of the range."""
        if not self.dynamic_axes:
            return self.opt_shape
        return {bound: getattr(self, bound) for bound in _BOUNDS}

    @classmethod
    def from_tensor(cls, t: torch.Tensor, disable_memory_format_check: bool = False) -> Input:
        """Return the input that a tensor is an example of."""
        channels_last = t.dim() == 4 and not t.is_contiguous()
        channels_last = channels_last and t.is_contiguous(memory_format=torch.channels_last)
        used = channels_last and not disable_memory_format_check
        chosen = torch.channels_last if used else torch.contiguous_format
        return cls(tuple(t.shape), dtype=t.dtype, format=chosen, torch_tensor=t)

    @classmethod
    def from_tensors(
        cls, ts: Sequence[torch.Tensor], disable_memory_format_check: bool = False
    ) -> list[Input]:
        """Return an input for each tensor."""
        return [cls.from_tensor(t, disable_memory_format_check) for t in ts]

    @staticmethod
    def equivalent_spec(a: Input, b: Input) -> bool:
        """Return whether two inputs have the same shapes, dtype and format."""
        return (a.shape, a.dtype, a.format) == (b.shape, b.dtype, b.format)

    def example(self, seed: int = 0) -> torch.Tensor:
        """Make a tensor of `example_shape()`: the given one, or one of random values."""
        if self.torch_tensor is not None:
            return self.torch_tensor.to(self.device, self.dtype)
        if self.is_shape_tensor:
            return torch.tensor(self.values, dtype=self.dtype, device=self.device)
        made = super().example(seed)
        return made.to(memory_format=self.format.to(torch.memory_format))

    def example_tensor(self, optimization_profile_field: str | None = None) -> torch.Tensor:
        """Return an example; of "min_shape", "opt_shape" or "max_shape" for a range."""
        if optimization_profile_field is None or not self.dynamic_axes:
            return self.example()
        made = copy.copy(self)
        made.torch_tensor, made.profiles = None, ()
        made.min_shape = made.opt_shape = made.max_shape = getattr(self, optimization_profile_field)
        return made.example()


def placed(tree: Any, device: torch.device) -> Any:
    """Return arguments with the `Input`s that name no device on this one."""

    def on_device(leaf: Any) -> Any:
        if not isinstance(leaf, Input) or leaf.is_placed:
            return leaf
        made = copy.copy(leaf)
        made.device = device
        return made

    if not any(isinstance(leaf, Input) for leaf in pytree.tree_leaves(tree)):
        return tree  # as given: a copy of a cache would be another one
    return pytree.tree_map(on_device, tree)


def in_a_list(inputs: Any) -> Any:
    """Return arguments as a sequence: one tensor or `Input` may stand alone."""
    return [inputs] if isinstance(inputs, (torch.Tensor, PortrtInput)) else inputs


def torch_dtype(value: Any) -> torch.dtype:
    """Return torch's dtype for one of torch, numpy or `torch_tensorrt.dtype`, or for a name.

    Raises:
        SettingsError: There is no such dtype.
    """
    if isinstance(value, torch.dtype):
        return value
    found: Any = dtype_enum.try_from(value)
    if found is not None and found.try_to(torch.dtype) is not None:
        return found.to(torch.dtype)  # type: ignore[no-any-return]
    named = getattr(torch, str(getattr(value, "__name__", value)).rpartition(".")[2], None)
    if not isinstance(named, torch.dtype):
        raise SettingsError(
            f"a dtype is {value!r}", "a dtype such as torch.float16", "give a dtype of torch"
        )
    return named


def _triple(profile: Any) -> Any:
    if not isinstance(profile, Mapping):
        return profile
    if set(profile) != set(_BOUNDS):
        raise SettingsError(
            f"a profile has {', '.join(map(repr, profile))}",
            f"exactly {', '.join(map(repr, _BOUNDS))}",
            "give the three shapes",
        )
    return tuple(profile[bound] for bound in _BOUNDS)


def _names_of(low: Any, high: Any) -> dict[int, str] | None:
    """Return axis -> field of a named tuple, of the dynamic axes."""
    fields: Callable[..., Any] | tuple[str, ...] = getattr(low, "_fields", ())
    if not isinstance(fields, tuple) or len(fields) != len(high or ()):
        return None
    return {axis: name for axis, name in enumerate(fields) if low[axis] != high[axis]}
