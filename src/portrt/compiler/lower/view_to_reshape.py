"""Replace `aten.view` by `aten.reshape`, which does not depend on strides.

A view that is valid on the strides of the traced program may not be on those of a tensor that an
engine returns, or that an operator made from one: engines return contiguous tensors.
"""

from __future__ import annotations

import torch

_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def view_to_reshape(graph_module: torch.fx.GraphModule) -> None:
    """Rewrite every view to a given size."""
    for node in graph_module.graph.nodes:
        if node.target in _VIEWS:
            node.target = torch.ops.aten.reshape.default
    graph_module.recompile()
