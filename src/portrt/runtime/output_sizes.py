"""Checks data-dependent output sizes against the signature of the block.

torch builds on these promises when it traces a program, so that a wrong size would go on to what
is computed from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from portrt.engines.base import LayerTime, Session, fits
from portrt.errors import EngineError
from portrt.format.manifest import DataDependentSize, Signature


def measured(session: Session, signature: Signature) -> Session:
    """Wrap the session in such checks where an output of the block has a data-dependent size."""
    sizes = [size for spec in signature.outputs for size in spec.shape]
    if not any(isinstance(size, DataDependentSize) for size in sizes):
        return session
    return MeasuredSession(session, signature)


class MeasuredSession(Session):
    """A session whose results are looked at.

    Args:
        session: Runs the block.
        signature: What the block returns.
    """

    def __init__(self, session: Session, signature: Signature) -> None:
        self._session = session
        self._signature = signature
        self.supports_layer_times = session.supports_layer_times

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once; see `Session`.

        Raises:
            EngineError: A size is not what the manifest promises.
        """
        outputs = self._session.run(inputs, shapes)
        sizes: dict[str, int] = {}
        for spec, output, shape in zip(self._signature.outputs, outputs, shapes, strict=True):
            if not fits(output.shape, shape):
                raise self._other(
                    f"output {spec.name!r} has the shape {tuple(output.shape)}", shape
                )
            for wanted, found in zip(spec.shape, output.shape, strict=True):
                if isinstance(wanted, DataDependentSize):
                    if wanted.max is not None and found > wanted.max:
                        raise self._other(f"{wanted.symbol} is {found}", f"at most {wanted.max}")
                    if sizes.setdefault(wanted.symbol, found) != found:
                        known = sizes[wanted.symbol]
                        raise self._other(f"{wanted.symbol} is {known} and {found}", "one size")
        return outputs

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """The times of the session's layers."""
        return self._session.layer_times(inputs, shapes, calls=calls)

    def _other(self, fact: str, wanted: object) -> EngineError:
        return EngineError(
            f"the engine of {self._signature.name} gave other sizes than its manifest promises: "
            f"{fact}",
            f"{wanted}",
            "give data of which the model takes no more, as its checks say; or adopt the plan "
            "again with outputs that promise what it gives",
        )
