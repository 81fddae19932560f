"""Names of layers and words of builders, to the nodes of a block that they are about."""

from __future__ import annotations

import pytest

from portrt.graphs.node_names import nodes_named, nodes_of_layer

# As of a block with these nodes in this order; "add" and "add_1" are two of them.
ORDER = ["linear", "relu", "linear_1", "add", "add_1", "split", "layer_norm", "my_node_x", "mean"]


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [
        ("node_linear_1", ["linear_1"]),
        ("node_add", ["add"]),
        ("node_add_1", ["add_1"]),
        ("node_add_1_0", ["add_1"]),
        ("node_split__1", ["split"]),
        ("node_linear_1 + node_relu", ["relu", "linear_1"]),
        ("PWN(PWN(node_relu), node_add)", ["relu", "add"]),
        ("node_linear || node_linear_1", ["linear", "linear_1"]),
        ("fused node_linear_1", ["linear_1"]),
        ("node_linear.MatMul_6", ["linear"]),
        ("node_add/MatMulAddFusion", ["add"]),
        ("reshape_before_node_linear", ["linear"]),
        ("node_my_node_x", ["my_node_x"]),
        ("Reformatting CopyNode for Input Tensor 0 to node_mean", ["mean"]),
        ("{ForeignNode[node_linear...node_add]}", ["linear", "relu", "linear_1", "add"]),
        ("{ForeignNode[node_add_1 + node_relu...node_add]}", ["relu", "linear_1", "add", "add_1"]),
        ("{ForeignNode[node_relu...node_relu]}", ["relu"]),
        ("{ForeignNode[encoder.weight...node_add]}", ["add"]),
        ("{ForeignNode[node_mean...(Unnamed Layer* 7) [Shuffle]]}", ["mean"]),
        ("a[ONNX Layer: node_relu]\x1e[ONNX Layer: node_mean]", ["relu", "mean"]),
        ("[ShapeHostToDeviceNode]", []),
        ("(Unnamed Layer* 12) [Constant]", []),
        ("Reformatting CopyNode for Input Tensor 0 to /layer/MatMul", []),
        ("linear", []),
        ("anode_linear", []),
        ("node_linear_7", ["linear"]),
        ("node_linearity", []),
        ("node_", []),
        ("", []),
    ],
)
def test_nodes_of_layer(layer: str, nodes: list[str]) -> None:
    assert nodes_of_layer(layer, ORDER) == tuple(nodes)


def test_a_range_ends_where_the_block_ends() -> None:
    assert nodes_of_layer(f"{{ForeignNode[node_{ORDER[0]}...node_{ORDER[-1]}]}}", ORDER) == tuple(
        ORDER
    )


def test_nodes_named_in_an_error_message() -> None:
    text = "In node 3 (importNode): UNSUPPORTED_NODE: node_add_1_0 of node_mean; node_gone failed"
    assert nodes_named(text, set(ORDER)) == {"add_1", "mean"}
    assert nodes_named("", set(ORDER)) == set()
