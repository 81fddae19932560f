"""Keep LSTM and GRU layers as one node each.

torch.export unrolls them to one step after another for the length of the example: a large program
for that length only. ONNX and the engines have the layer as one operator.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch.export import ExportedProgram

from portrt import torch_internals

aten = torch.ops.aten

_NAMESPACE = "portrt_whole"
_TAIL = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, "
    "bool bidirectional, bool batch_first)"
)
_SCHEMAS = {
    "lstm": f"(Tensor input, Tensor[] hx, {_TAIL} -> (Tensor, Tensor, Tensor)",
    "gru": f"(Tensor input, Tensor hx, {_TAIL} -> (Tensor, Tensor)",
}
_LAYERS = {"lstm": aten.lstm.input, "gru": aten.gru.input}


@lru_cache
def _stand_ins() -> dict[Any, Any]:
    """Return torch's operator -> an equivalent one of ours that torch does not decompose."""
    untyped: Any = torch.library.Library
    library = untyped(_NAMESPACE, "DEF")
    _keep.append(library)
    found = {}
    for name, schema in _SCHEMAS.items():
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, _LAYERS[name], "CompositeExplicitAutograd")
        library.impl(name, torch.library.fallthrough_kernel, "Autograd")
        torch.library.register_fake(f"{_NAMESPACE}::{name}", _FAKES[name], lib=library)
        found[_LAYERS[name]] = getattr(getattr(torch.ops, _NAMESPACE), name).default
    return found


_keep: list[Any] = []  # torch removes the operators of a library that is freed


def _sequence(input: Any, hidden: Any, bidirectional: bool) -> Any:  # noqa: A002  (torch's name)
    width = hidden.shape[2] * (2 if bidirectional else 1)
    return input.new_empty((input.shape[0], input.shape[1], width))


def _fake_lstm(input: Any, hx: Any, *rest: Any) -> Any:  # noqa: A002
    made = _sequence(input, hx[0], rest[5])
    return made, torch.empty_like(hx[0]), torch.empty_like(hx[1])


def _fake_gru(input: Any, hx: Any, *rest: Any) -> Any:  # noqa: A002
    return _sequence(input, hx, rest[5]), torch.empty_like(hx)


_FAKES: dict[str, Callable[..., Any]] = {"lstm": _fake_lstm, "gru": _fake_gru}


@contextlib.contextmanager
def keep_recurrent_layers() -> Iterator[None]:
    """Make torch.export keep the layers that are single, batched nodes of `aten`, in a context."""
    with contextlib.ExitStack() as stack:
        for operator, stand_in in _stand_ins().items():
            stack.enter_context(torch_internals.decomposed_as(operator, stand_in))
        yield


def run_decompositions(program: ExportedProgram, table: Any) -> ExportedProgram:
    """Call `program.run_decompositions(table)`, keeping recurrent layers as one node each.

    torch would trace the program's guards with it, each of which may then add others: of
    `a == 1 or a == b` the first half, that is `a != 1`.
    """
    unguarded = torch_internals.with_guards_of(copy.copy(program), None)
    with (
        keep_recurrent_layers(),
        torch_internals.shared_operator_lists(),
        torch_internals.sizes_of_several_masks(),
    ):
        decomposed: ExportedProgram = unguarded.run_decompositions(table)
    torch_internals.add_guards_of(decomposed, program)
    originals = {stand_in: operator for operator, stand_in in _stand_ins().items()}
    for module in decomposed.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.target = originals.get(node.target, node.target)
            module.recompile()
    return decomposed
