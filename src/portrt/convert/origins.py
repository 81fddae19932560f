"""Which operator call of the model each ONNX node was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.export import ExportedProgram

from portrt.module_path import ModulePath

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


def origins_of(model: onnx_ir.Model, program: ExportedProgram) -> Mapping[str, Origin]:
    """Name of each ONNX node -> its operator call; a node that folding made has none."""
    calls = {
        node.name: Origin(node.name, str(node.target), ModulePath.of(node.meta))
        for node in program.graph.nodes
        if node.op == "call_function"
    }
    found = {}
    for node in model.graph.all_nodes():
        call = calls.get(fx_name(node) or "")
        if call is not None and node.name is not None:
            found[node.name] = call
    return found
