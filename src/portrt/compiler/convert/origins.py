"""Origins of ONNX nodes: the operator call of the model that each was translated from."""

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
        module: The modules that the call is in.
    """

    node: str
    operator: str
    module: ModulePath


def fx_name(node: onnx_ir.Node) -> str | None:
    """Return the name of the graph node in the exporter's metadata ("%add : [num_users=...")."""
    kept = node.metadata_props.get(FX_NODE)
    return kept.partition(" ")[0].lstrip("%") if kept else None


def name_after_origins(
    model: onnx_ir.Model, program: ExportedProgram, source: ExportedProgram, *, decomposed: bool
) -> Mapping[str, Origin]:
    """Rename the nodes of a model so that each name identifies an operator call of the source.

    The exporter names nodes after the decomposed graph, in which `mul_1` may have become `mul_9`,
    and intermediate nodes of a translation `node_MatMul_6`. The latter becomes
    `node_linear.MatMul_6`, so that builder messages about a layer can be attributed to `linear`, as
    `graphs/node_names.py` does.

    Args:
        model: The translated model; its nodes are renamed in place.
        program: The program that was translated: the source, possibly decomposed, with casts that
            torch.onnx inserted.
        source: The block's program.
        decomposed: Whether operators of the source were decomposed in `program`.

    Returns:
        Name of each node -> its operator call in the source. Nodes from constant folding, and
        nodes for which torch records no origin, are left out.
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
    """Return the name of the node that a node was decomposed from; "" if torch has not kept it."""
    made_of = node.meta.get("from_node") or ()
    return made_of[-1].name if made_of else ""


def _name(name: str, fx: str, origin: Origin | None) -> str:
    rest = name.removeprefix("node_")
    if origin is None:
        return f"onnx_{rest}"
    own = rest == fx or re.fullmatch(r"_+\d+", rest.removeprefix(fx))
    return name if own and fx == origin.node else f"node_{origin.node}.{rest}"
