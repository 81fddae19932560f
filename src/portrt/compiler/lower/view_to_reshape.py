"""Replace `aten.view` by `aten.reshape`, which does not depend on strides.

Engines return contiguous tensors, so a view that is valid on the strides of the traced program may
be invalid on an engine's output, or on what an operator computes from one.
"""

from __future__ import annotations

import torch

_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def view_to_reshape(graph_module: torch.fx.GraphModule) -> None:
    """Rewrite every `view` and `_unsafe_view` with sizes, in place."""
    for node in graph_module.graph.nodes:
        if node.target in _VIEWS:
            node.target = torch.ops.aten.reshape.default
    graph_module.recompile()
