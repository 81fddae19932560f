"""The engine calls of a program, found in its graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def manifests_of(program: ExportedProgram | torch.nn.Module) -> list[str]:
    """The manifests of all engine calls in a program, in call order."""
    return [str(node.args[2]) for node in engine_calls(program)]


def engine_calls(program: ExportedProgram | torch.nn.Module) -> Iterator[Any]:
    """The graph nodes that call `execute_engine`."""
    import torch
    from torch.export import ExportedProgram

    from portrt.runtime.op import register

    register()  # where torch loads no backends by itself
    root = program.graph_module if isinstance(program, ExportedProgram) else program
    for module in root.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if node.target is torch.ops.portrt.execute_engine.default:
                    yield node
