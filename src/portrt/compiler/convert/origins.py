"""Which operator call of the model each ONNX node was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.export import ExportedProgram

from portrt.graphs import nested
from portrt.graphs.module_path import ModulePath

if TYPE_CHECKING:
    import onnx_ir

FX_NODE = "pkg.torch.onnx.fx_node"


@dataclass(frozen=True)
class Origin:
    """An operator call.

    Attributes:
        node: Name of the graph node.
        operator: Such as "aten.linear.default".
        module: Where in the model it is.
    """

    node: str
    operator: str
    module: ModulePath


def fx_name(node: onnx_ir.Node) -> str | None:
    """The name of the graph node that the exporter wrote down ("%add : [num_users=...")."""
    kept = node.metadata_props.get(FX_NODE)
    return kept.partition(" ")[0].lstrip("%") if kept else None


def name_after_origins(
    model: onnx_ir.Model, program: ExportedProgram, source: ExportedProgram, *, decomposed: bool
) -> Mapping[str, Origin]:
    """Rename the nodes of a model so that each name leads to an operator call of the source.

    The exporter calls them after the graph it was given, in which a decomposition may have put
    `mul_9` for what was `mul_1`, and calls what is in the middle of a translation `node_MatMul_6`.
    Then that is `node_linear.MatMul_6`, so that a builder's words about a layer lead to `linear`,
    as `backends/layer_names.py` reads them.

    Args:
        model: Of `program`; its nodes get other names.
        program: What was translated: the source with what torch.onnx put in, such as casts.
        source: What the block has.
        decomposed: Whether operators of the source were decomposed in `program`.

    Returns:
        Name of each node -> its operator call in the source; a node that folding made has none,
        nor has what torch put in, or does not say the origin of.
    """
    calls = {
        node.name: Origin(node.name, str(node.target), ModulePath.of(node.meta))
        for node in nested.all_nodes(source.graph_module)
        if node.op == "call_function"
    }
    known = {
        node.name: calls.get(decomposed_from(node) if decomposed else node.name)
        for node in nested.all_nodes(program.graph_module)
        if node.op == "call_function"
    }
    found = {}
    for node in model.graph.all_nodes():
        fx = fx_name(node)
        if fx is None or node.name is None:
            continue
        origin = known.get(fx)
        node.name = _name(node.name, fx, origin)
        if origin is not None:
            found[node.name] = origin
    return found


def decomposed_from(node: torch.fx.Node) -> str:
    """The name of what a node was made of; empty where torch does not say it."""
    made_of = node.meta.get("from_node") or ()
    return made_of[-1].name if made_of else ""


def _name(name: str, fx: str, origin: Origin | None) -> str:
    rest = name.removeprefix("node_")
    if origin is None:
        return f"onnx_{rest}"
    own = rest == fx or re.fullmatch(r"_+\d+", rest.removeprefix(fx))
    return name if own and fx == origin.node else f"node_{origin.node}.{rest}"
