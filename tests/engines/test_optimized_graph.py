"""Fused nodes of ONNX Runtime to the nodes of a block, on graphs made by hand."""

from __future__ import annotations

from onnx import helper

from portrt.engines.onnxruntime.optimized_graph import GraphNode, nodes_behind


def graph(*rows: tuple[str, str, str, str]) -> list[GraphNode]:
    """(name, kind, inputs, outputs); nodes named node_X come from X."""
    found = []
    for name, kind, inputs, outputs in rows:
        node = helper.make_node(kind, inputs.split(), outputs.split(), name=name)
        if name.startswith("node_"):
            item = node.metadata_props.add()
            item.key, item.value = "torch_node", name.removeprefix("node_")
        found.append(GraphNode.of(node))
    return found


GIVEN = graph(
    ("node_matmul", "MatMul", "x w", "m"),
    ("node_add", "Add", "m b", "a"),
    ("node_gelu", "Gelu", "a", "g"),
    ("node_skip", "Add", "g x", "s"),
    ("node_norm", "LayerNormalization", "s scale", "n"),
)


def test_a_fused_node_computes_what_lies_between_its_values() -> None:
    made = graph(
        ("node_matmul", "MatMul", "x w", "m"),
        ("BiasGelu", "BiasGelu", "m b", "g"),
        ("SkipNorm", "SkipLayerNormalization", "g x scale", "n"),
    )
    assert nodes_behind(made, GIVEN) == {
        "node_matmul": ("matmul",),
        "BiasGelu": ("add", "gelu"),
        "SkipNorm": ("skip", "norm"),
    }


def test_the_order_is_that_of_the_block() -> None:
    made = graph(("All", "Custom", "x w b scale", "n"))
    assert nodes_behind(made, GIVEN)["All"] == ("matmul", "add", "gelu", "skip", "norm")


def test_a_value_that_still_exists_is_computed_by_its_own_node() -> None:
    made = graph(
        ("One", "Custom", "x w b", "a"),
        ("Two", "Custom", "x w b scale", "n"),  # does not take `a`, which is there all the same
    )
    assert nodes_behind(made, GIVEN) == {"One": ("matmul", "add"), "Two": ("gelu", "skip", "norm")}


def test_a_node_that_another_is_called_after_is_not_counted_twice() -> None:
    made = graph(
        ("node_matmul", "MatMul", "x w", "renamed"),
        ("BiasGelu", "BiasGelu", "renamed b", "g"),
        ("SkipNorm", "SkipLayerNormalization", "g x scale", "n"),
    )
    found = nodes_behind(made, GIVEN)
    assert found["node_matmul"] == ("matmul",)
    assert found["BiasGelu"] == ("add", "gelu")


def test_what_prepares_for_others_is_counted_to_them() -> None:
    given = graph(
        ("node_first", "Gather", "x i", "p"),
        ("node_second", "Gather", "x j", "q"),
    )
    made = graph(
        ("node_second/SomeFusion", "Split", "x", "left right"),
        ("Squeeze", "Squeeze", "left", "p"),
        ("Squeeze_1", "Squeeze", "right", "q"),
    )
    assert nodes_behind(made, given) == {
        "node_second/SomeFusion": ("first", "second"),
        "Squeeze": ("first",),
        "Squeeze_1": ("second",),
    }


def test_convolutions_in_another_layout() -> None:
    """Their values are new, and their names are those of the old ones."""
    given = graph(
        ("node_conv", "Conv", "x w", "c"),
        ("node_relu", "Relu", "c", "r"),
        ("node_conv_1", "Conv", "r v", "d"),
        ("node_add", "Add", "d r", "e"),
        ("node_relu_1", "Relu", "e", "f"),
        ("node_mean", "ReduceMean", "f", "y"),
    )
    made = graph(
        ("ReorderInput", "ReorderInput", "x", "x_reordered"),
        ("r_nchwc", "Conv", "x_reordered w", "t0"),
        ("d_nchwc", "Conv", "t0 v t0", "t1"),
        ("ReorderOutput", "ReorderOutput", "t1", "f"),
        ("node_mean", "ReduceMean", "f", "y"),
    )
    assert nodes_behind(made, given) == {
        "ReorderInput": (),
        "r_nchwc": ("conv", "relu"),
        "d_nchwc": ("conv_1", "add", "relu_1"),
        "ReorderOutput": (),
        "node_mean": ("mean",),
    }


def test_what_nothing_is_known_of() -> None:
    made = graph(("Mystery", "Custom", "x", "z"), ("node_norm", "Custom", "z", "n2"))
    assert nodes_behind(made, GIVEN) == {"Mystery": ("norm",), "node_norm": ("norm",)}
    assert nodes_behind(graph(("Mystery", "Custom", "x", "z")), GIVEN) == {"Mystery": ()}


def test_casts_are_counted_to_what_they_are_for() -> None:
    given = graph(
        ("cast", "Cast", "x", "x32"),
        ("node_matmul", "MatMul", "x32 w", "m32"),
        ("cast_back", "Cast", "m32", "m"),
    )
    made = [*given[:2], *graph(("InsertedCast_m", "Cast", "m32", "m"))]
    assert nodes_behind(made, given) == {
        "cast": ("matmul",),
        "node_matmul": ("matmul",),
        "InsertedCast_m": ("matmul",),
    }
    assert nodes_behind(given, given)["cast_back"] == ("matmul",)


def test_values_in_another_precision() -> None:
    given = graph(
        ("node_linear", "Gemm", "x w", "linear"),
        ("node_relu", "Relu", "linear", "relu"),
        ("node_linear_1", "Gemm", "relu v", "linear_1"),
    )
    cast = "InsertedPrecisionFreeCast_"
    made = graph(
        (f"{cast}x", "Cast", "x", f"{cast}x"),
        ("fused node_linear", "FusedGemm", f"{cast}x w32", f"{cast}relu"),
        ("node_linear_1", "Gemm", f"{cast}relu v32", f"{cast}linear_1"),
        (f"{cast}linear_1", "Cast", f"{cast}linear_1", "linear_1"),
    )
    assert nodes_behind(made, given) == {
        f"{cast}x": ("linear", "relu"),
        "fused node_linear": ("linear", "relu"),
        "node_linear_1": ("linear_1",),
        f"{cast}linear_1": ("linear_1",),
    }


def test_nodes_that_do_not_say_where_they_come_from() -> None:
    given = [GraphNode(node.name, node.kind, node.inputs, node.outputs, "") for node in GIVEN]
    made = graph(("BiasGelu", "BiasGelu", "m b", "g"))
    assert nodes_behind(made, given) == {"BiasGelu": ()}
