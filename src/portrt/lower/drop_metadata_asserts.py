"""Remove asserts about dtype, device and layout: they hold by construction, and pin the device."""

from __future__ import annotations

import torch


def drop_metadata_asserts(graph_module: torch.fx.GraphModule) -> None:
    """Erase every `aten._assert_tensor_metadata` call, in nested graphs too."""
    for module in graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in list(module.graph.nodes):
                if node.target is torch.ops.aten._assert_tensor_metadata.default:
                    module.graph.erase_node(node)
            module.recompile()
