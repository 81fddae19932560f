"""Checks data-dependent output sizes against the signature of the block.

torch relies on these bounds when it traces a program, so a wrong size would corrupt later results.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from portrt.engines.base import LayerTime, Session, fits
from portrt.errors import EngineError
from portrt.format.manifest import DataDependentSize, Signature


def measured(session: Session, signature: Signature) -> Session:
    """Wrap the session in these checks if an output of the block has a data-dependent size."""
    sizes = [size for spec in signature.outputs for size in spec.shape]
    if not any(isinstance(size, DataDependentSize) for size in sizes):
        return session
    return MeasuredSession(session, signature)


class MeasuredSession(Session):
    """A session whose output sizes are checked.

    Args:
        session: Session that runs the block.
        signature: Outputs of the block.
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
            EngineError: A size contradicts the manifest.
        """
        outputs = self._session.run(inputs, shapes)
        sizes: dict[str, int] = {}
        for spec, output, shape in zip(self._signature.outputs, outputs, shapes, strict=True):
            if not fits(output.shape, shape):
                raise self._error(
                    f"output {spec.name!r} has the shape {tuple(output.shape)}", shape
                )
            for wanted, found in zip(spec.shape, output.shape, strict=True):
                if isinstance(wanted, DataDependentSize):
                    if wanted.max is not None and found > wanted.max:
                        raise self._error(f"{wanted.symbol} is {found}", f"at most {wanted.max}")
                    if sizes.setdefault(wanted.symbol, found) != found:
                        first = sizes[wanted.symbol]
                        raise self._error(f"{wanted.symbol} is {first} and {found}", "one size")
        return outputs

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Return the execution times of the session's layers."""
        return self._session.layer_times(inputs, shapes, calls=calls)

    def _error(self, fact: str, wanted: object) -> EngineError:
        return EngineError(
            f"the engine of {self._signature.name} returned sizes that contradict its manifest: "
            f"{fact}",
            f"{wanted}",
            "give data within the bounds that the model checks; or, for a prebuilt engine, declare "
            "outputs with the sizes that it returns",
        )
