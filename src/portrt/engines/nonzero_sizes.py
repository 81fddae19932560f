"""Refuses calls without elements, for engines whose library cannot run them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from portrt.engines.base import LayerTime, Session
from portrt.errors import OutOfProfileError
from portrt.format import size_expr
from portrt.format.signature import Signature


class NonzeroSession(Session):
    """A session for calls in which some sizes are not 0.

    Args:
        session: Session of the engine.
        signature: Inputs of the block.
        sizes: Expression trees of the sizes.
        library: Name of the library, for messages.
    """

    takes_all_sizes = False

    def __init__(
        self,
        session: Session,
        signature: Signature,
        sizes: Sequence[size_expr.Tree],
        library: str,
    ) -> None:
        self._session = session
        self._signature = signature
        # Most are sizes of inputs, and are looked at without an evaluation.
        self._dims = [tree[1:] for tree in sizes if _is_dimension(tree)]
        self._trees = [tree for tree in sizes if not _is_dimension(tree)]
        self._library = library
        self.supports_layer_times = session.supports_layer_times

    def run(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run once; see `Session`.

        Raises:
            OutOfProfileError: One of the sizes is 0.
        """
        for index, axis in self._dims:
            if not inputs[index].shape[axis]:
                self._refuse(inputs)
        if self._trees:
            self._evaluate(inputs)
        return self._session.run(inputs, shapes)

    def layer_times(
        self, inputs: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], *, calls: int
    ) -> list[LayerTime]:
        """Return the execution times of the engine's layers."""
        return self._session.layer_times(inputs, shapes, calls=calls)

    def _evaluate(self, inputs: Sequence[torch.Tensor]) -> None:
        for tree in self._trees:
            try:
                size = size_expr.evaluate(tree, lambda index, axis: inputs[index].shape[axis])
            except ArithmeticError:
                size = 0
            if not size:
                self._refuse(inputs)

    def _refuse(self, inputs: Sequence[torch.Tensor]) -> None:
        shapes = ", ".join(
            f"{spec.name} {tuple(tensor.shape)}"
            for spec, tensor in zip(self._signature.inputs, inputs, strict=True)
        )
        raise OutOfProfileError(
            f"{self._signature.name} was called with {shapes}, of which an operator gets a size "
            f"of 0",
            f"sizes from 1 on, where {self._library} needs elements",
            "leave the call out, or use a file that has its sources, with fallback='eager'",
        )


def _is_dimension(tree: size_expr.Tree) -> bool:
    return isinstance(tree, list) and tree[0] == "dim"
