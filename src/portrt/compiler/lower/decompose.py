"""Decompose to operators that torch.onnx translates; composite ones that it takes are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.onnx.ops
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.compiler.convert.translations import Translations, with_built_in
from portrt.compiler.lower import grouped_matmul
from portrt.compiler.lower.complex_numbers import complex_to_real, has_complex_tensors
from portrt.compiler.lower.decompositions import DECOMPOSITIONS, normalization, quantized
from portrt.compiler.lower.flat_inputs import through_flat_inputs
from portrt.errors import LowerError
from portrt.graphs.recurrent import run_decompositions
from portrt.graphs.torch_error import TorchError

logger = logging.getLogger(__name__)

# Inference batch norm is kept as one node, so that engines fold it into the convolution before it.
# A program that itself calls the operator may read its saved statistics, to which torch.onnx gives
# other sizes and dtypes than PyTorch: then it is decomposed.
_BATCH_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default


def decompose(
    program: ExportedProgram, translations: Translations = (), whole: Collection[str] = ()
) -> ExportedProgram:
    """Return a functional copy of `program` in which composite operators stay one node each.

    Those are attention, norms, GELU, the operators of `translations`, and the nodes whose names are
    in `whole`.
    """
    table = torch_internals.onnx_decompositions(
        torch_internals.NEWEST_OPSET, with_built_in(translations)
    )
    taken = {target for target, _ in translations}
    own = {
        **DECOMPOSITIONS,
        **grouped_matmul.decompositions(),
        **quantized.decompositions(),
        **torch.onnx.ops.aten_decompositions(),  # of the torch.onnx.ops operators
    }
    table.update({op: made for op, made in own.items() if op not in taken})
    if not any(node.target is _BATCH_NORM for node in program.graph.nodes):
        # It comes from a batch norm layer; its statistics are unused.
        table[_BATCH_NORM] = normalization.double_batch_norm
    # torch's own decomposition of it writes in place.
    table.pop(torch.ops.aten.diagonal_scatter.default, None)
    if whole:
        table = {op: _except_for(whole, made) for op, made in table.items()}
    return through_flat_inputs(program, lambda flat: _decomposed(flat, table))


def _except_for(whole: Collection[str], made: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decomposition that leaves the calls of some nodes as they are."""

    def decomposition(*args: Any, **kwargs: Any) -> Any:
        if torch_internals.traced_node() in whole:
            return NotImplemented
        return made(*args, **kwargs)

    return decomposition


def _decomposed(program: ExportedProgram, table: Any) -> ExportedProgram:
    lowered: ExportedProgram
    with torch_internals.oblivious_to_size_one():
        try:
            lowered = run_decompositions(program, table)
            if has_complex_tensors(lowered):
                lowered = run_decompositions(complex_to_real(lowered), table)
        except Exception as err:
            reason = f"{type(err).__name__}: {str(err).strip().partition(chr(10))[0]}"
            logger.warning(
                "torch fails to decompose the model, so it is compiled undecomposed: %s", reason
            )
            lowered = _functional(program)
    return lowered


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Return the program with nothing decomposed but operators that write to their inputs."""
    try:
        return run_decompositions(program, {})
    except Exception as err:
        failure = TorchError.of(err)
        raise LowerError(
            f"torch cannot functionalize the captured model: {failure}",
            "a program on which ExportedProgram.run_decompositions succeeds",
            "; ".join(
                (*failure.advice, "call torch.export.export and run_decompositions yourself")
            ),
        ) from err
