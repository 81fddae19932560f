"""External data of an ONNX model, found in its bytes: no onnx, no protobuf library.

ONNX Runtime reads the file that a tensor names, from any folder and even from an address in memory,
and the tensor may be anywhere in the model: a weight, an attribute, a branch, a function.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from portrt.errors import brief

MAX_DEPTH = 64
_ORT_FORMAT = b"ORTM"  # at byte 4 of a model in ONNX Runtime's own format

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Where an engine's model has its weights: in the weights image.
WEIGHTS_LOCATION = "weights.safetensors"

# Field number -> message, of every field of onnx.proto from which a TensorProto can be reached. A
# weight is an initializer of the model's own graph.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Main", 20: "Training", 25: "Function"},
    "Main": {1: "Node", 5: "Weight", 15: "Sparse"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "Sparse",
        23: "Sparse",
    },
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_TENSOR_FIELDS = (_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION)


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose data is outside of the model.

    Attributes:
        name: Its name.
        location: The file, or the files, that it names.
        is_weight: It is an initializer of the model's own graph.
    """

    name: str
    location: tuple[str, ...]
    is_weight: bool


def external_tensors(data: bytes) -> list[ExternalTensor]:
    """Find every tensor of a model that has its data elsewhere.

    Args:
        data: The bytes of a ModelProto.

    Raises:
        ValueError: They are no ModelProto.
    """
    if data[4:8] == _ORT_FORMAT:
        raise ValueError("the model is in ONNX Runtime's own format")
    found: list[ExternalTensor] = []
    waiting = [("Model", 0, len(data), 0)]
    while waiting:
        kind, start, end, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"messages are nested deeper than {MAX_DEPTH} levels")
        inner = _FIELDS.get(kind)
        if inner is None:
            found += _external(data, start, end, kind == "Weight")
            continue
        for number, wire, first, last in _fields(data, start, end, inner):
            if wire == _BYTES:
                waiting.append((inner[number], first, last, depth + 1))
    return found


def external_fault(data: bytes, weights: Sequence[str]) -> str:
    """Return why an engine's model is refused, or an empty text.

    Args:
        data: The bytes of a ModelProto.
        weights: Names of the weights that the engine takes from the weights image.
    """
    if b"location" not in data and data[4:8] != _ORT_FORMAT:
        return ""  # the key of every name of a file
    try:
        tensors = external_tensors(data)
    except ValueError as err:
        return f"is no ONNX model: {err}"
    allowed = set(weights)
    for tensor in tensors:
        if tensor.location != (WEIGHTS_LOCATION,):
            return f"has data in another file: {brief(tensor.location)}"
        if not tensor.is_weight or tensor.name not in allowed:
            return f"has {tensor.name!r:.80} outside of it, which is none of its weights"
        allowed.remove(tensor.name)  # each once
    return ""


def _external(data: bytes, start: int, end: int, is_weight: bool) -> Iterator[ExternalTensor]:
    name, places, external = "", [], False
    for number, wire, first, last in _fields(data, start, end, _TENSOR_FIELDS):
        if number == _DATA_LOCATION:
            external |= wire != _VARINT or first != 0
        elif wire == _BYTES and number == _TENSOR_NAME:
            name = data[first:last].decode()
        elif wire == _BYTES:
            external = True
            places += _location(data, first, last)
    if external:
        yield ExternalTensor(name, tuple(places), is_weight)


def _location(data: bytes, start: int, end: int) -> list[str]:
    """Return the value of a StringStringEntryProto whose key is "location"."""
    texts = {1: "", 2: ""}
    for number, wire, first, last in _fields(data, start, end, texts):
        if wire == _BYTES:
            texts[number] = data[first:last].decode()
    return [texts[2]] if texts[1] == "location" else []


def _fields(
    data: bytes, place: int, end: int, wanted: Container[int]
) -> list[tuple[int, int, int, int]]:
    """List some fields of a message, and check the form of all.

    Returns:
        Number, wire type, and the range of the content, or the integer itself, twice.
    """
    found = []
    while place < end:
        # The short form first: it is that of nearly all, and this loop is most of the work.
        tag = data[place]
        place += 1
        if tag >= 0x80:
            tag, place = _varint(data, place - 1, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError("a field has no number")
        if wire in (_BYTES, _VARINT):
            value = data[place] if place < end else 0x80
            place += 1
            if value >= 0x80:
                value, place = _varint(data, place - 1, end)
            if wire == _VARINT:
                if number in wanted:
                    found.append((number, wire, value, value))
                continue
        elif wire == _FIXED32:
            value = 4
        elif wire == _FIXED64:
            value = 8
        else:
            raise ValueError("a field is of an unknown kind")
        if value > end - place:
            raise ValueError("a field ends after its message")
        if number in wanted:
            found.append((number, wire, place, place + value))
        place += value
    return found


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """Read an integer of seven bits a byte; return it and the place after it."""
    found = 0
    for count in range(10):
        if place + count >= end:
            raise ValueError("an integer ends after its message")
        byte = data[place + count]
        found |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return found, place + count + 1
    raise ValueError("an integer has more than ten bytes")
