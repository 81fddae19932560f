"""LSTM and GRU layers for which ONNX has no operator, or ONNX Runtime no kernel.

ONNX's LSTM has no projection of its hidden state, and ONNX Runtime 1.32 computes neither layer in
float64 ("LSTM operator does not support double yet"). Those are a Scan over the steps, of any
number; all others are what torch.onnx writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset18 as op

from portrt import torch_internals

aten = torch.ops.aten

_TRANSPOSED = [1, 0]
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def lstm(
    x: Any,
    states: Sequence[Any],
    weights: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    *options: Any,
) -> Any:
    """Translate `aten::lstm.input`.

    Args:
        x: [steps, batch, width], or [batch, steps, width] if `batch_first`.
        states: Hidden state and cell at the start, [layers * directions, batch, width].
        weights: Of each layer and direction: of the input, of the hidden state, two biases if
            `has_biases`, and that of the projection if there is one.
        has_biases: See `weights`.
        num_layers: Number of layers.
        *options: dropout, train, bidirectional, batch_first.
    """
    directions = 2 if options[2] else 1
    per_direction = len(weights) // (num_layers * directions)
    if x.dtype != ir.DataType.DOUBLE and per_direction == (4 if has_biases else 2):
        whole = torch_internals.torch_translation(aten.lstm.input)
        return whole(x, states, weights, has_biases, num_layers, *options)
    dtype = x.dtype
    if dtype in _HALF:  # ONNX Runtime 1.32 crashes on some models with a Scan of float16
        x, *states = _cast([x, *states], ir.DataType.FLOAT)
        weights = _cast(weights, ir.DataType.FLOAT)
    cells = [
        _LSTM(*_split(weights[first : first + per_direction], has_biases))
        for first in range(0, len(weights), per_direction)
    ]
    found = _layers(x, states, cells, directions, batch_first=options[3])
    return tuple(_cast(found, dtype)) if dtype in _HALF else found


def gru(
    x: Any,
    state: Any,
    weights: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    *options: Any,
) -> Any:
    """Translate `aten::gru.input`; the arguments are those of `lstm`, with one state."""
    if x.dtype != ir.DataType.DOUBLE:
        whole = torch_internals.torch_translation(aten.gru.input)
        return whole(x, state, weights, has_biases, num_layers, *options)
    directions = 2 if options[2] else 1
    per_direction = 4 if has_biases else 2
    cells = [
        _GRU(*_split(weights[first : first + per_direction], has_biases))
        for first in range(0, len(weights), per_direction)
    ]
    return _layers(x, [state], cells, directions, batch_first=options[3])


def built_in() -> tuple[tuple[Any, Callable[..., Any]], ...]:
    """Return the translations of this module."""
    return (aten.lstm.input, lstm), (aten.gru.input, gru)


def _cast(values: Sequence[Any], dtype: ir.DataType) -> list[Any]:
    made = [op.Cast(value, to=dtype) for value in values]
    for value in made:
        value.dtype = dtype
    return made


def _split(weights: Sequence[Any], has_biases: bool) -> tuple[Any, ...]:
    """Return the weights of input and state, the biases of both or None, and a projection."""
    of_input, of_state, *others = weights
    biases = (others[0], others[1]) if has_biases else (None, None)
    return of_input, of_state, biases, *others[2 if has_biases else 0 :]


def _layers(
    x: Any, states: Sequence[Any], cells: Sequence[_Cell], directions: int, *, batch_first: bool
) -> tuple[Any, ...]:
    """Run the cells of one layer after the other; returns the output and the last states."""
    kind = ir.TensorType(x.dtype)
    if batch_first:
        x = op.Transpose(x, perm=[1, 0, 2])
    last: list[list[Any]] = []
    for layer in range(0, len(cells), directions):
        made = []
        for index in range(layer, layer + directions):
            row = op.Constant(value_int=index)
            starts = [op.Gather(state, row, axis=0) for state in states]
            *ends, outputs = _scan(cells[index], kind, x, starts, backward=index > layer)
            last.append(ends)
            made.append(outputs)
        x = op.Concat(*made, axis=-1) if directions > 1 else made[0]
    if batch_first:
        x = op.Transpose(x, perm=[1, 0, 2])
    rows = ([op.Unsqueeze(state, [0]) for state in ends] for ends in zip(*last, strict=True))
    return x, *(op.Concat(*found, axis=0) for found in rows)


def _scan(
    cell: _Cell, kind: ir.TensorType, x: Any, starts: Sequence[Any], *, backward: bool
) -> Sequence[Any]:
    """Run a cell over the steps; returns the last states and the hidden state of each step."""
    weighted, captured = cell.prepared(x)
    step = _Step()
    taken = [
        ir.Value(name=f"portrt_step_in_{index}", type=kind)
        for index, _ in enumerate((*starts, weighted))
    ]
    states = cell.step(step, taken[-1], taken[:-1], captured)
    outputs = [*states, step("Identity", states[0])]
    for value in outputs:
        value.type = kind
    found: Sequence[Any] = torch_internals.onnx_call(
        "Scan",
        [*starts, weighted],
        len(outputs),
        body=ir.Graph(taken, outputs, nodes=step.nodes, name="step"),
        num_scan_inputs=1,
        scan_input_directions=[int(backward)],
        scan_output_directions=[int(backward)],
    )
    return found


class _Step:
    """Collects the nodes of one step; they may use values of the graph around it.

    Their values have names, because onnx_ir gives unnamed values the same names inside and around.
    """

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def __call__(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        made = ir.node(operator, inputs, attributes, num_outputs=outputs)
        for value in made.outputs:
            value.name = f"portrt_step_{len(self.nodes)}_{value.index()}"
        self.nodes.append(made)
        return made.outputs[0] if outputs == 1 else made.outputs

    def parts(self, x: Any, count: int) -> Any:
        """Split the last dimension."""
        return self("Split", x, outputs=count, axis=-1, num_outputs=count)


@dataclass(frozen=True)
class _Cell:
    """One direction of one layer; weights as torch has them, [gates * width, ...]."""

    of_input: Any
    of_state: Any
    biases: tuple[Any, Any]
    projection: Any = field(default=None)

    def prepared(self, x: Any) -> tuple[Any, list[Any]]:
        """Return the product of all steps with the weight of the input, and what a step uses."""
        raise NotImplementedError

    def step(self, step: _Step, x: Any, states: Sequence[Any], captured: Sequence[Any]) -> Any:
        """Write one step; returns the states after it."""
        raise NotImplementedError

    def _weighted(self, x: Any, bias: Any) -> Any:
        product = op.MatMul(x, op.Transpose(self.of_input, perm=_TRANSPOSED))
        return product if bias is None else op.Add(product, bias)


class _LSTM(_Cell):
    def prepared(self, x: Any) -> tuple[Any, list[Any]]:
        bias = None if self.biases[0] is None else op.Add(*self.biases)
        used = [self.of_state] if self.projection is None else [self.of_state, self.projection]
        return self._weighted(x, bias), [op.Transpose(w, perm=_TRANSPOSED) for w in used]

    def step(self, step: _Step, x: Any, states: Sequence[Any], captured: Sequence[Any]) -> Any:
        hidden, cell = states
        gates = step("Add", x, step("MatMul", hidden, captured[0]))
        taken, kept, new, shown = step.parts(gates, 4)  # in torch's order
        cell = step(
            "Add",
            step("Mul", step("Sigmoid", kept), cell),
            step("Mul", step("Sigmoid", taken), step("Tanh", new)),
        )
        hidden = step("Mul", step("Sigmoid", shown), step("Tanh", cell))
        for projection in captured[1:]:
            hidden = step("MatMul", hidden, projection)
        return [hidden, cell]


class _GRU(_Cell):
    def prepared(self, x: Any) -> tuple[Any, list[Any]]:
        bias, other = self.biases
        captured = [op.Transpose(self.of_state, perm=_TRANSPOSED)]
        return self._weighted(x, bias), captured if other is None else [*captured, other]

    def step(self, step: _Step, x: Any, states: Sequence[Any], captured: Sequence[Any]) -> Any:
        (hidden,) = states
        product = step("MatMul", hidden, captured[0])
        for bias in captured[1:]:
            product = step("Add", product, bias)
        given, own = step.parts(x, 3), step.parts(product, 3)
        reset, update = (
            step("Sigmoid", step("Add", one, other))
            for one, other in zip(given[:2], own[:2], strict=True)
        )
        new = step("Tanh", step("Add", given[2], step("Mul", reset, own[2])))
        kept = step("Mul", update, step("Sub", hidden, new))
        return [step("Add", kept, new)]
