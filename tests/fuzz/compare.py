"""Are outputs those of eager, as far as roundings leave them determined?"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fuzz.graph import Graph, Step, evaluate, plain
from fuzz.noise import Noisy, in_float64, widened

_HALVES = (torch.float16, torch.bfloat16)

# Relative differences that are no mismatch on their own.
_RTOL = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
# A few of the smallest numbers with all digits; below these results are rounded off to steps.
_ATOL = {
    torch.float64: 1e-307,
    torch.float32: 5e-38,
    torch.float16: 2e-7,
    torch.bfloat16: 5e-38,
}


@dataclass
class Reference:
    """What eager returns for a call, and what it returns with other roundings."""

    graph: Graph
    inputs: Sequence[torch.Tensor]

    def __post_init__(self) -> None:
        self._values = evaluate(self.graph, self.inputs, plain)
        self.eager = [self._values[index].clone() for index in self.graph.outputs]
        self._noisy: list[list[torch.Tensor]] = []
        for seed in range(3):
            self._add(Noisy(seed))
        self._is_patient = False

    def _outputs(self, call: object) -> list[torch.Tensor]:
        values = evaluate(self.graph, self.inputs, call)  # type: ignore[arg-type]
        return [values[index].clone() for index in self.graph.outputs]

    def _add(self, noisy: Noisy) -> None:
        with contextlib.suppress(Exception):  # an undefined value may be an index or a divisor
            self._noisy.append(self._outputs(noisy))

    def _add_wide(self, seed: int) -> None:
        """Without the rounding of some halves between steps, nor numbers beyond their range."""
        rng = torch.Generator().manual_seed(seed)
        dtypes = iter(value.dtype for value in self._values[self.graph.first_result :])

        def call(step: Step, args: Sequence[object], kwargs: dict[str, object]) -> object:
            made = in_float64(step, args, kwargs)
            results = list(made) if isinstance(made, (list, tuple)) else [made]
            for index, value in enumerate(results):
                dtype = next(dtypes)
                if seed and dtype in _HALVES:
                    either = dtype if torch.rand((), generator=rng) < 0.5 else torch.float32
                    results[index] = value.to(either).to(value.dtype)
            return results

        with contextlib.suppress(Exception):
            values = evaluate(self.graph, widened(list(self.inputs)), call)
            made = [values[index] for index in self.graph.outputs]
            pairs = zip(made, self.eager, strict=True)
            self._noisy.append([wide.to(eager.dtype).clone() for wide, eager in pairs])

    def difference(self, position: int, got: torch.Tensor) -> str:
        """How an output differs from eager's; "" where roundings explain it."""
        wanted = self.eager[position]
        if got.dtype != wanted.dtype or got.shape != wanted.shape:
            return f"{got.dtype} {tuple(got.shape)} for {wanted.dtype} {tuple(wanted.shape)}"
        if torch.equal(got, wanted) or not bool(self._differs(position, got).any()):
            return ""
        if not self._is_patient:
            self._is_patient = True
            for seed in range(24):
                self._add(Noisy(100 + seed, 4.0 if seed % 2 else 16.0))
            if any(value.dtype in _HALVES for value in self._values):
                for seed in range(12):  # 0: no half is rounded
                    self._add_wide(seed)
        differs = self._differs(position, got)
        if wanted.dtype.is_floating_point and bool(differs.any()):
            differs &= ~self._nearer(position, got)
        if not bool(differs.any()):
            return ""
        where = tuple(differs.nonzero()[0].tolist())
        return (
            f"{got[where].item()!r} for {wanted[where].item()!r} at {where}, "
            f"{int(differs.sum())} of {got.numel()} differ"
        )

    def determined(self) -> tuple[int, int]:
        """Elements whose class is the same with all roundings, of how many."""
        total = stable = 0
        for position, wanted in enumerate(self.eager):
            total += wanted.numel()
            stable += int(self._stable(position).sum())
        return stable, total

    def _stable(self, position: int) -> torch.Tensor:
        wanted = self.eager[position]
        stable = torch.ones(wanted.shape, dtype=torch.bool)
        for outputs in self._noisy:
            stable &= _class_of(outputs[position]) == _class_of(wanted)
        return stable

    def _differs(self, position: int, got: torch.Tensor) -> torch.Tensor:
        """Where an element is of another class than eager's, or too far from it."""
        wanted = self.eager[position]
        stable = self._stable(position)
        differs = _class_of(got) != _class_of(wanted)
        if wanted.dtype.is_floating_point:
            wide = wanted.double()
            spread = torch.zeros_like(wide)
            for outputs in self._noisy:
                spread = torch.maximum(spread, (outputs[position].double() - wide).abs())
            bound = 8 * spread + _RTOL[wanted.dtype] * wide.abs() + _ATOL[wanted.dtype]
            differs |= (got.double() - wide).abs() > bound
        return differs & stable

    def _nearer(self, position: int, got: torch.Tensor) -> torch.Tensor:
        """Where the element is as near to a run in float64 as eager's is, within a factor.

        Of a value that overflows in eager on the way it is another class that is nearer.
        """
        try:
            values = evaluate(
                self.graph,
                [x.double() if x.is_floating_point() else x for x in self.inputs],
                in_float64,
            )
        except Exception:
            return torch.zeros(got.shape, dtype=torch.bool)
        exact = values[self.graph.outputs[position]]
        if exact.dtype != torch.float64 or exact.shape != got.shape:
            return torch.zeros(got.shape, dtype=torch.bool)
        eager = self.eager[position]
        mine, eagers = (got.double() - exact).abs(), (eager.double() - exact).abs()
        bound = _RTOL[got.dtype] * exact.abs() + _ATOL[got.dtype]
        near = (mine <= 2 * eagers) | (~eager.isfinite() & exact.isfinite() & (mine <= bound))
        # A value of eager that overflowed on the way, unless it does in float64, too.
        overflown = ~eager.isfinite() & (_class_of(got) == _class_of(exact.to(got.dtype)))
        return torch.where(got.isfinite(), near, overflown)


def _class_of(x: torch.Tensor) -> torch.Tensor:
    """0 for finite floats, else nan or an infinity; integers are classes of their own."""
    if not x.dtype.is_floating_point:
        return x.long()
    return x.isnan().long() * 3 + x.isposinf().long() + x.isneginf().long() * 2
