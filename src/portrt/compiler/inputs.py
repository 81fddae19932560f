"""`Input`: the dtype and the range of shapes of a model's argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt.errors import SettingsError


class Input:
    """The dtype and the shape, or range of shapes, of one tensor argument.

    Args:
        shape: The static shape. Pass either this or all of `min_shape`, `opt_shape`, `max_shape`.
        min_shape: Smallest size of each dimension.
        opt_shape: Sizes that engines are tuned for, and that the example for `torch.export` has.
        max_shape: Largest size of each dimension. A dimension whose min and max differ is dynamic.
        dtype: The tensor's dtype.
        name: The argument's name in messages; the signature's own name when None.
        profiles: Instead of the three shapes: a (min, opt, max) triple of shapes for each
            optimization profile, such as prefill and decode steps of a language model. `min_shape`
            and `max_shape` are then the bounds of all profiles, and `opt_shape` is that of the
            first one. All inputs with profiles have the same number of them; an input without has
            the same range in each. TensorRT takes sizes within one of the profiles, ONNX Runtime
            all sizes within the bounds.
        shared_dims: Axis -> name. Dynamic dimensions of the same name, in any input, always have
            the same size.
        tensor_domain: Half-open range [low, high) of the values of the example. Integer examples
            default to [0, 2), which are valid indices of any embedding table.
        device: Device of the example.

    Raises:
        SettingsError: The shapes contradict each other.
    """

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        min_shape: Sequence[int] | None = None,
        opt_shape: Sequence[int] | None = None,
        max_shape: Sequence[int] | None = None,
        profiles: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]] | None = None,
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
        shared_dims: Mapping[int, str] | None = None,
        tensor_domain: tuple[float, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        ranged = (min_shape, opt_shape, max_shape)
        self.profiles = tuple(_profile(item) for item in profiles or ())
        if self.profiles and shape is None and all(part is None for part in ranged):
            ranged = self._bounds()
        elif profiles is not None:
            raise SettingsError(
                f"Input(profiles={profiles}) with {len(self.profiles)} profiles and another shape",
                "at least one profile, and no shape, min_shape, opt_shape or max_shape beside it",
                "pass the shapes in the profiles only",
            )
        if shape is not None and all(part is None for part in ranged):
            ranged = (shape, shape, shape)
        elif shape is not None or any(part is None for part in ranged):
            raise SettingsError(
                f"Input(shape={shape}, min_shape={min_shape}, opt_shape={opt_shape}, "
                f"max_shape={max_shape})",
                "either shape, or all three of min_shape, opt_shape and max_shape",
                "pass a static shape, or a full range",
            )
        self.min_shape, self.opt_shape, self.max_shape = (tuple(part or ()) for part in ranged)
        self.dtype = dtype
        self.name = name
        self.shared_dims = dict(shared_dims or {})
        self.tensor_domain = tensor_domain
        self.device = torch.device(device)
        self._check()

    def _bounds(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Return the bounds of all profiles, and the opt shape of the first one."""
        if len({len(shape) for profile in self.profiles for shape in profile}) != 1:
            raise SettingsError(
                f"Input(profiles={list(self.profiles)}) has shapes of several ranks",
                "shapes of one rank in all profiles",
                "pass min, opt and max shapes with one size for each dimension",
            )
        min_shapes, opt_shapes, max_shapes = zip(*self.profiles, strict=True)
        low = tuple(min(sizes) for sizes in zip(*min_shapes, strict=True))
        high = tuple(max(sizes) for sizes in zip(*max_shapes, strict=True))
        return low, opt_shapes[0], high

    def ranges(self, axis: int) -> tuple[tuple[int, int, int], ...]:
        """Return (min, opt, max) of a dimension in each profile; one range without profiles."""
        found = self.profiles or ((self.min_shape, self.opt_shape, self.max_shape),)
        return tuple((low[axis], opt[axis], high[axis]) for low, opt, high in found)

    def _check(self) -> None:
        ranks = {len(self.min_shape), len(self.opt_shape), len(self.max_shape)}
        ordered = len(ranks) == 1 and all(
            0 <= low <= opt <= high
            for axis in range(len(self.min_shape))
            for low, opt, high in self.ranges(axis)
        )
        if not ordered:
            raise SettingsError(
                f"{self!r} has shapes that do not fit each other",
                "three shapes of one rank with min <= opt <= max in every dimension",
                "correct the shapes",
            )
        for axis in self.shared_dims:
            if axis not in self.dynamic_axes:
                raise SettingsError(
                    f"{self!r} shares dimension {axis}, which is static or does not exist",
                    f"an axis among the dynamic ones, {list(self.dynamic_axes)}",
                    "name only dimensions whose min and max differ",
                )

    def __repr__(self) -> str:
        name = f"{self.name!r}, " if self.name else ""
        if not self.dynamic_axes:
            return f"Input({name}shape={self.opt_shape}, dtype={self.dtype})"
        return (
            f"Input({name}min_shape={self.min_shape}, opt_shape={self.opt_shape}, "
            f"max_shape={self.max_shape}, dtype={self.dtype})"
        )

    @property
    def dynamic_axes(self) -> tuple[int, ...]:
        """Axes whose size is dynamic."""
        return tuple(
            axis
            for axis, (low, high) in enumerate(zip(self.min_shape, self.max_shape, strict=False))
            if low != high
        )

    def example_shape(self) -> tuple[int, ...]:
        """Return `opt_shape`, with dynamic sizes of 0 or 1 raised to 2 if the range allows it.

        torch.export specializes example sizes of 0 and 1 to constants.
        """
        sizes = list(self.opt_shape)
        for axis in self.dynamic_axes:
            sizes[axis] = min(max(sizes[axis], 2), self.max_shape[axis])
        return tuple(sizes)

    def example(self, seed: int = 0) -> torch.Tensor:
        """Make a tensor of `example_shape()` with reproducible random values."""
        generator = torch.Generator().manual_seed(seed)
        shape = self.example_shape()
        if self.dtype.is_floating_point or self.dtype.is_complex:
            low, high = self.tensor_domain or (-1.0, 1.0)
            real = torch.rand(shape, generator=generator) * (high - low) + low
            return real.to(self.dtype).to(self.device)
        low, high = self.tensor_domain or (0, 2)
        integers = torch.randint(int(low), int(high), shape, generator=generator)
        return integers.to(self.dtype).to(self.device)

    def dynamic_shapes(self, dims: dict[str, Any]) -> dict[int, Any]:
        """Return axis -> `torch.export.Dim`; shared dims come from `dims`, and new ones are added.

        Raises:
            SettingsError: A shared name stands for two different ranges.
        """
        found = {}
        for axis in self.dynamic_axes:
            low, high = self.min_shape[axis], self.max_shape[axis]
            name = self.shared_dims.get(axis, f"dim_{len(dims)}")
            dim = dims.setdefault(name, torch.export.Dim(name, min=low, max=high))
            if (dim.min, dim.max) != (low, high):
                raise SettingsError(
                    f"the shared dimension {name!r} is {dim.min} to {dim.max} in one input and "
                    f"{low} to {high} in {self!r}",
                    "one range per name",
                    "make the ranges equal, or use two names",
                )
            found[axis] = dim
        return found


def _profile(item: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    try:
        min_shape, opt_shape, max_shape = (tuple(shape) for shape in item)
    except (TypeError, ValueError) as err:
        raise SettingsError(
            f"a profile is {item!r}",
            "three shapes (min, opt, max)",
            "write profiles=[((1, 1), (1, 1), (8, 1)), ((1, 2), (1, 128), (8, 512))]",
        ) from err
    return min_shape, opt_shape, max_shape


def device_of(
    module: torch.nn.Module | ExportedProgram, args: Any, kwargs: Mapping[str, Any] | None
) -> str:
    """Return the device type of the example inputs, or of an exported program's own."""
    if args is None and kwargs is None and isinstance(module, ExportedProgram):
        args = module.example_inputs
    leaves = pytree.tree_leaves((args, kwargs))
    devices = (item.device for item in leaves if isinstance(item, (torch.Tensor, Input)))
    return next((device.type for device in devices if device.type != "cpu"), "cpu")
