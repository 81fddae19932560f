"""Rewrite complex arithmetic as real arithmetic: neither ONNX nor the engines have complex dtypes.

Every complex tensor of the graph becomes two real tensors, its real and imaginary part. Operators
without a rule here stay complex, between `view_as_complex` and `view_as_real`, and run in PyTorch;
so do complex inputs and outputs of the program. Complex weights become real ones with a last
dimension of two.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind

from portrt import torch_internals
from portrt.compiler.lower.complex_numbers import arithmetic, data_movement, fourier
from portrt.compiler.lower.complex_numbers.values import REAL_DTYPES, Pair, Value, Writer, parts_of
from portrt.compiler.lower.drop_metadata_asserts import drop_metadata_asserts
from portrt.graphs.program_inputs import output_specs

logger = logging.getLogger(__name__)

aten = torch.ops.aten
_RULES: Mapping[Any, Callable[..., Any]] = {
    **data_movement.RULES,
    **arithmetic.RULES,
    **fourier.RULES,
}
_WEIGHT_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
# Meta keys that a rule's nodes do not inherit from the node that they replace.
_OWN_META = ("val", "tensor_meta", "unbacked_bindings")


def has_complex_tensors(program: ExportedProgram) -> bool:
    """Return whether a node of the program takes or returns a complex tensor."""
    return any(_is_complex(value) for node in program.graph.nodes for value in _values(node))


def complex_to_real(program: ExportedProgram) -> ExportedProgram:
    """Rewrite the program in real arithmetic; the new `aten` operators are not yet decomposed.

    Args:
        program: Decomposed. Its graph is modified in place, its weights are not.
    """
    graph = program.graph
    drop_metadata_asserts(program.graph_module)
    mode = torch_internals.fake_mode_of(graph)
    real = _real_weights(program, mode)
    _Rewrite(graph, mode, {node for node in graph.nodes if node.name in real}).run()
    graph.lint()
    program.graph_module.recompile()
    signature = program.graph_signature
    tensors = {
        spec.target: real.get(getattr(spec.arg, "name", "")) for spec in signature.input_specs
    }

    def held(known: Mapping[str, Any]) -> dict[str, Any]:
        found = {name: tensors.get(name) for name in known}
        return {name: known[name] if t is None else t for name, t in found.items()}

    return torch_internals.program_from_graph(
        program,
        program.graph_module,
        ExportGraphSignature(list(signature.input_specs), output_specs(program, graph)),
        held(program.state_dict),
        held(program.constants),
        program.module_call_graph,
    )


def _real_weights(program: ExportedProgram, mode: Any) -> dict[str, torch.Tensor]:
    """Return placeholder name -> real tensor for the complex weights that are never written to."""
    signature = program.graph_signature
    written = set(signature.buffers_to_mutate.values())
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    found: dict[str, torch.Tensor] = {}
    for spec in signature.input_specs:
        if spec.kind not in _WEIGHT_KINDS or spec.target is None or spec.target in written:
            continue
        held = program.state_dict.get(spec.target)
        tensor = program.constants.get(spec.target) if held is None else held
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in REAL_DTYPES:
            continue
        real = torch.view_as_real(tensor.detach().resolve_conj())
        is_parameter = spec.kind is InputKind.PARAMETER
        found[spec.arg.name] = torch.nn.Parameter(real, False) if is_parameter else real
        node = nodes[spec.arg.name]
        with mode:
            node.meta["val"] = torch.view_as_real(node.meta["val"])
    return found


class _Rewrite:
    """Rewrites a graph in the order of its nodes.

    Args:
        graph: Modified in place.
        mode: The fake mode of its tensors.
        weights: Placeholders of complex weights that are now real, with a last dimension of two.
    """

    def __init__(self, graph: torch.fx.Graph, mode: Any, weights: set[torch.fx.Node]) -> None:
        self._graph = graph
        self._mode = mode
        self._weights = weights
        self._parts: dict[torch.fx.Node, Any] = {}  # complex node -> pair, or list of pairs
        self._gone = set(weights)  # nodes that exist as parts only
        self._complex_values: dict[torch.fx.Node, torch.fx.Node] = {}  # rebuilt from their parts

    def run(self) -> None:
        """Rewrite every node, then remove dead nodes."""
        for node in list(self._graph.nodes):
            if node.op not in ("call_function", "output") or not self._is_touched(node):
                continue
            with self._graph.inserting_before(node):
                if node.op == "output" or not self._apply_rule(node):
                    node.args = self._with_complex_values(node.args)
                    node.kwargs = self._with_complex_values(node.kwargs)
        self._graph.eliminate_dead_code()

    def _is_touched(self, node: torch.fx.Node) -> bool:
        if any(source in self._weights for source in node.all_input_nodes):
            return True
        nodes = (node, *node.all_input_nodes)
        return any(_is_complex(value) for item in nodes for value in _values(item))

    def _apply_rule(self, node: torch.fx.Node) -> bool:
        """Compute a node's result with real tensors; return False if no rule covers the call."""
        source: Any = node.args[0] if node.args else None
        if node.target is operator.getitem and isinstance(self._parts.get(source), list):
            made = self._parts[source][node.args[1]]
        else:
            rule = _RULES.get(node.target)
            if rule is None:
                return False
            writer = self._writer(node)
            args, kwargs = self._arguments(node.args, writer), self._arguments(node.kwargs, writer)
            made = rule(writer, *args, **kwargs)
            if made is NotImplemented or not _fits(made, node.meta["val"]):
                logger.debug("%s stays complex: no rule covers this call", node.name)
                return False
        if isinstance(made, Value):
            node.replace_all_uses_with(made.node)
        else:
            self._parts[node] = made
            self._gone.add(node)
        return True

    def _arguments(self, arguments: Any, writer: Writer) -> Any:
        """Replace the nodes in arguments by pairs and values."""

        def given(node: torch.fx.Node) -> Any:
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor):
                return node  # a size
            is_complex = node in self._weights or _is_complex(value)
            return self._pair(node, writer) if is_complex else Value(node, writer)

        return torch.fx.node.map_arg(arguments, given)

    def _pair(self, node: torch.fx.Node, writer: Writer) -> Pair:
        if node not in self._parts:
            real = Value(node, writer)
            if node not in self._weights:
                real = real.call(aten.view_as_real.default)
            self._parts[node] = parts_of(writer, real)
        return Pair(*(Value(part.node, writer) for part in self._parts[node]))

    def _with_complex_values(self, arguments: Any) -> Any:
        """Replace nodes that exist as parts only by complex tensors rebuilt from the parts.

        Lists of complex tensors do not occur here: `getitem` selects their elements before.
        """

        def rebuilt(node: torch.fx.Node) -> torch.fx.Node:
            if node not in self._gone:
                return node
            if node not in self._complex_values:
                writer = self._writer(node)
                real = Value(node, writer)
                if node not in self._weights:
                    real = writer.call(aten.stack.default, list(self._parts[node]), -1)
                self._complex_values[node] = real.call(aten.view_as_complex.default).node
            return self._complex_values[node]

        return torch.fx.node.map_arg(arguments, rebuilt)

    def _writer(self, node: torch.fx.Node) -> Writer:
        meta = {key: value for key, value in node.meta.items() if key not in _OWN_META}
        return Writer(self._graph, meta, self._mode)


def _fits(made: Any, wanted: Any) -> bool:
    """Return whether a rule's result has the dtypes and ranks of the original."""
    if isinstance(wanted, (list, tuple)):
        return len(made) == len(wanted) and all(map(_fits, made, wanted))
    if not wanted.is_complex():
        return isinstance(made, Value) and _is_like(made, wanted, wanted.dtype)
    dtype = REAL_DTYPES.get(wanted.dtype)
    if not isinstance(made, Pair) or torch_internals.is_data_dependent(wanted):
        return False
    return all(isinstance(part, Value) and _is_like(part, wanted, dtype) for part in made)


def _is_like(made: Value, wanted: torch.Tensor, dtype: torch.dtype | None) -> bool:
    return made.fake.dtype == dtype and made.fake.dim() == wanted.dim()


def _values(node: torch.fx.Node) -> list[Any]:
    value = node.meta.get("val")
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_complex(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_complex()
