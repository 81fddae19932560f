"""The engine calls of a program, found in its graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from portrt.errors import PackageError
from portrt.format.archive import OPERATOR

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def manifests_of(program: ExportedProgram | torch.nn.Module) -> list[str]:
    """Collect the manifests of all engine calls in a program, in call order."""
    return [str(node.args[2]) for node in engine_calls(program)]


def engine_calls(program: ExportedProgram | torch.nn.Module) -> Iterator[Any]:
    """Find the graph nodes that call `execute_engine`, in call order.

    Raises:
        PackageError: A call has other arguments than inputs, blobs and a manifest.
    """
    import torch
    from torch.export import ExportedProgram

    root = program.graph_module if isinstance(program, ExportedProgram) else program
    for module in root.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if is_engine_operator(node.target):
                    if len(node.args) != 3 or not isinstance(node.args[2], str):
                        raise PackageError(
                            f"the engine call {node.name} has {len(node.args)} arguments, or no "
                            "manifest",
                            "inputs, blobs and the text of a manifest",
                            "get the file again from where it was made, or compile the model again",
                        )
                    yield node


def is_engine_operator(target: Any) -> bool:
    """Return whether a node's target is `execute_engine`.

    Compares names, because the operator may not be registered yet.
    """
    import torch

    return isinstance(target, torch._ops.OpOverload) and f"torch.ops.{target}" == OPERATOR
