"""The reader of ONNX bytes, against the onnx library: wherever a tensor can name a file."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from portrt.format.onnx_wire import WEIGHTS_LOCATION, external_fault, external_tensors

WEIGHT = "first.weight"


def outside(location: str = "secret.bin", name: str = "leak") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3, 4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(*weights: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Add", ["x", WEIGHT], ["y"])
    shaped = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4]) for name in "xy"]
    inside = numpy_helper.from_array(np.ones((2, 2), np.float32), "inside")
    graph = helper.make_graph([node], "g", shaped[:1], shaped[1:], [inside, *weights])
    return helper.make_model(graph)


def _attribute(kind: int, **values: object) -> AttributeProto:
    attribute = AttributeProto(name="value", type=kind)
    for name, value in values.items():
        held = getattr(attribute, name)
        held.CopyFrom(value) if not isinstance(value, list) else held.extend(value)
    return attribute


def _in_node(made: onnx.ModelProto, attribute: AttributeProto) -> None:
    made.graph.node[0].attribute.append(attribute)


def _sparse() -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=outside(), dims=[3, 4])


def _graph(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["leak"], ["o"])], "s", [], [], [tensor])


def _deep(made: onnx.ModelProto) -> None:
    inner = _graph(outside())
    for _ in range(5):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["o"])], "s", [], [])
        graph.node[0].attribute.append(_attribute(AttributeProto.GRAPH, g=inner))
        inner = graph
    _in_node(made, _attribute(AttributeProto.GRAPH, g=inner))


def _function(made: onnx.ModelProto, attribute: AttributeProto) -> None:
    function = made.functions.add(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["o"]))
    function.node[0].attribute.append(attribute)


TENSOR, GRAPH = AttributeProto.TENSOR, AttributeProto.GRAPH
PLACES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "weight": lambda m: m.graph.initializer.append(outside()),
    "sparse weight": lambda m: m.graph.sparse_initializer.append(_sparse()),
    "attribute": lambda m: _in_node(m, _attribute(TENSOR, t=outside())),
    "attributes": lambda m: _in_node(m, _attribute(AttributeProto.TENSORS, tensors=[outside()])),
    "attribute of another kind": lambda m: _in_node(m, _attribute(AttributeProto.INT, t=outside())),
    "sparse attribute": lambda m: _in_node(
        m, _attribute(AttributeProto.SPARSE_TENSOR, sparse_tensor=_sparse())
    ),
    "sparse attributes": lambda m: _in_node(
        m, _attribute(AttributeProto.SPARSE_TENSORS, sparse_tensors=[_sparse()])
    ),
    "branch": lambda m: _in_node(m, _attribute(GRAPH, g=_graph(outside()))),
    "branches": lambda m: _in_node(
        m, _attribute(AttributeProto.GRAPHS, graphs=[_graph(outside())])
    ),
    "branch of branches": _deep,
    "function": lambda m: _function(m, _attribute(TENSOR, t=outside())),
    "default of a function": lambda m: m.functions.add(name="f").attribute_proto.append(
        _attribute(TENSOR, t=outside())
    ),
    "training": lambda m: m.training_info.add().initialization.CopyFrom(_graph(outside())),
    "training step": lambda m: m.training_info.add().algorithm.CopyFrom(_graph(outside())),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_file_is_found_wherever_it_is_named(place: str) -> None:
    made = model(outside(WEIGHTS_LOCATION, WEIGHT))
    PLACES[place](made)
    data = made.SerializeToString()
    found = {tensor.location for tensor in external_tensors(data)}
    assert ("secret.bin",) in found
    assert "in another file" in external_fault(data, [WEIGHT])


@pytest.mark.parametrize(
    "location",
    [
        *("secret.bin", "/etc/passwd", "../x", "*/_ORT_MEM_ADDR_/*", "", "./weights.safetensors"),
        "weights.safetensors/",
    ],
)
def test_only_the_weights_image_may_be_named(location: str) -> None:
    data = model(outside(location, WEIGHT)).SerializeToString()
    assert "in another file" in external_fault(data, [WEIGHT])


def test_weights_of_the_engine_are_accepted() -> None:
    data = model(outside(WEIGHTS_LOCATION, WEIGHT)).SerializeToString()
    assert external_fault(data, [WEIGHT]) == ""
    assert external_fault(model().SerializeToString(), []) == ""


def test_the_weights_image_is_read_for_weights_alone() -> None:
    """ONNX Runtime gets values for those; for all others it would read a file of that name."""
    made = model(outside(WEIGHTS_LOCATION, WEIGHT))
    assert "none of its weights" in external_fault(made.SerializeToString(), [])
    made.graph.initializer.append(outside(WEIGHTS_LOCATION, WEIGHT))
    assert "none of its weights" in external_fault(made.SerializeToString(), [WEIGHT])
    branch = model()
    _in_node(branch, _attribute(GRAPH, g=_graph(outside(WEIGHTS_LOCATION, WEIGHT))))
    assert "none of its weights" in external_fault(branch.SerializeToString(), [WEIGHT])


def test_a_tensor_outside_without_a_place() -> None:
    tensor = TensorProto(name=WEIGHT, data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.doc_string = "location"
    assert "in another file" in external_fault(model(tensor).SerializeToString(), [WEIGHT])


def test_two_places_of_one_tensor() -> None:
    tensor = outside(WEIGHTS_LOCATION, WEIGHT)
    tensor.external_data.add(key="location", value="secret.bin")
    assert "in another file" in external_fault(model(tensor).SerializeToString(), [WEIGHT])


def test_a_graph_in_two_parts_is_one_graph() -> None:
    """Protobuf merges a field that comes twice."""
    second = onnx.ModelProto()
    second.graph.initializer.append(outside())
    data = model().SerializeToString() + second.SerializeToString()
    assert onnx.load_model_from_string(data).graph.initializer[-1].name == "leak"
    assert "in another file" in external_fault(data, [])


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x0blocation",  # ends within a field
        b"\x3f\x0blocation",  # a kind of fields that does not exist
        b"\x00\x0blocation",  # field 0
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01location",
        b"\x20\x00\x00\x00ORTM" + bytes(20),  # ONNX Runtime's own format
    ],
    ids=range(5),
)
def test_what_is_no_model(data: bytes) -> None:
    assert "is no ONNX model" in external_fault(data, [])


def test_changed_bytes_that_onnx_reads_are_read_alike() -> None:
    """What the onnx library finds in changed bytes is found, or the bytes are refused."""
    made = model(outside(WEIGHTS_LOCATION, WEIGHT))
    for place in ("attribute", "branch", "function"):
        PLACES[place](made)
    whole, chance = made.SerializeToString(), random.Random(0)
    compared = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 4])):
            data[chance.randrange(len(data))] = chance.choice([chance.randrange(256), 0x70, 0x6A])
        try:
            theirs = onnx.load_model_from_string(bytes(data))
        except Exception:  # of protobuf
            continue
        weights = {t.name for t in theirs.graph.initializer if t.data_location}
        try:
            ours = {t.name for t in external_tensors(data) if t.is_weight}
        except (ValueError, UnicodeDecodeError):
            continue
        assert weights <= ours
        compared += 1
    assert compared > 300
