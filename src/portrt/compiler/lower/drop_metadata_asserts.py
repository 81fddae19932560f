"""Remove asserts about dtype, device and layout: they always hold, and they fix the device."""

from __future__ import annotations

import torch


def drop_metadata_asserts(graph_module: torch.fx.GraphModule) -> None:
    """Erase every `aten._assert_tensor_metadata` call."""
    for node in list(graph_module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph_module.graph.erase_node(node)
    graph_module.recompile()
