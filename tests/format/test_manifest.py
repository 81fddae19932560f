"""The manifest: what is written is read back, and nothing else is read."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from effort import steps
from tiny import call_of, shared

from portrt.errors import PackageError
from portrt.format import manifest as manifests
from portrt.format.manifest import Blob, Dimension, check_digest, decode, encode

ENGINES = ("tensorrt_rtx", "onnxruntime")


@pytest.fixture(scope="module")
def text() -> str:
    """A manifest as compile wrote it."""
    return call_of(shared(*ENGINES)).text


@pytest.fixture
def entry(text: str) -> dict[str, Any]:
    """The same as plain values, to be spoilt."""
    return json.loads(text)


def refused(text: str, match: str | None = None) -> PackageError:
    with pytest.raises(PackageError, match=match) as caught:
        decode(text)
    assert caught.value.happened
    assert caught.value.expected
    assert caught.value.remedy
    assert len(str(caught.value)) < 2000
    return caught.value


def test_encoding_is_canonical() -> None:
    entry = {"b": [1, {"z": None, "a": 2}], "a": "\u00e9\n"}
    assert encode(entry) == '{"a":"\\u00e9\\n","b":[1,{"a":2,"z":null}]}'
    assert encode(dict(reversed(entry.items()))) == encode(entry)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_lacks_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encode({"a": number})


def test_a_compiled_programs_manifest_is_canonical_and_read_back(text: str) -> None:
    raw = json.loads(text)
    assert encode(raw) == text
    found = decode(text)
    assert found.format == 1  # nothing in it needs a newer version
    assert found.name == "block_0"
    assert [(spec.name, spec.dtype) for spec in found.inputs] == [("x", "float32")]
    dimension, width = found.inputs[0].shape
    assert isinstance(dimension, Dimension)
    assert (dimension.min, dimension.opt, dimension.max, width) == (1, 4, 32, 8)
    assert found.outputs[0].shape == (["dim", 0, 0], 4)
    assert tuple(engine.backend for engine in found.engines) == ENGINES
    requires = {"device": ["cpu"], "onnxruntime": "1.23", "nonzero_sizes": []}
    assert found.engines[1].requires == requires
    assert found.blob_count == 4
    assert found.source is not None
    assert found.weights is not None
    assert dict(found.policy) == raw["policy"]
    assert dict(found.producer) == raw["producer"]


def test_another_order_and_spaces_are_taken(text: str, entry: dict[str, Any]) -> None:
    loose = json.dumps(dict(reversed(entry.items())), indent=2)
    assert loose != text
    assert decode(loose) == decode(text)


def test_unknown_fields_are_ignored(text: str, entry: dict[str, Any]) -> None:
    entry["note"] = entry["engines"][0]["note"] = {"by": "another tool"}
    assert decode(encode(entry)) == decode(text)


def _fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all fields that the format fixes; free are facts about builds, checks, coverage."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if key == "report" and not path:
            continue
        yield (*path, key)
        if key not in ("build", "requires", "check", "policy") and isinstance(inner, (dict, list)):
            yield from _fields(inner, (*path, key))


def _holder(entry: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        entry = entry[key]
    return entry


def test_every_field_is_needed(entry: dict[str, Any]) -> None:
    paths = [path for path in _fields(entry) if not isinstance(path[-1], int)]
    assert len(paths) > 40
    for path in paths:
        if path[0] == "producer" and len(path) > 1:
            continue
        spoilt = copy.deepcopy(entry)
        del _holder(spoilt, path)[path[-1]]
        refused(encode(spoilt))


RETYPED = [None, True, False, 1.5, -1, 2**70, "text", "\n", [], {}, [None], [[]], {"a": 1}]


def test_every_field_is_held_to_its_type(entry: dict[str, Any]) -> None:
    """Each of these values is wrong for each field, but for those listed."""
    same_kind = {str: ("text",), dict: ({}, {"a": 1}), type(None): (None,)}
    for path in _fields(entry):
        old = _holder(entry, path)[path[-1]]
        for new in RETYPED:
            if any(new is value or new == value for value in same_kind.get(type(old), ())):
                continue
            nothing = ("weights", "source_weights", "check", "max", "shape")
            if path[-1] in nothing and new in (None, []):
                continue  # no weights, no upper bound, a shape of rank 0
            if path[-2:-1] in (("weights",), ("source_weights",)) and isinstance(new, str):
                continue  # any name will do
            spoilt = copy.deepcopy(entry)
            _holder(spoilt, path)[path[-1]] = new
            if path[-1] == "check" and isinstance(new, dict):
                continue
            try:
                refused(encode(spoilt))
            except pytest.fail.Exception:
                pytest.fail(f"{path} = {new!r} was taken")


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    keys = [int(key) if key.isdigit() else key for key in path.split(".")]

    def edit(entry: dict[str, Any]) -> None:
        _holder(entry, tuple(keys))[keys[-1]] = value

    return edit


def _swap_blobs(entry: dict[str, Any]) -> None:
    one, two = entry["engines"][0]["data"], entry["engines"][1]["data"]
    one["blob"] = two["blob"]


LIES = {
    "older format": (_set("format", 0), "format version 0"),
    "newer format": (
        _set("format", manifests.FORMAT + 1),
        f"format version {manifests.FORMAT + 1}",
    ),
    "format is text": (_set("format", "1"), "format version '1'"),
    "format is true": (_set("format", True), "format version True"),
    "format is 1.0": (_set("format", 1.0), "format version 1.0"),
    "blob beyond the call": (_set("engines.1.data.blob", 4), "refers to blob 4"),
    "two are one blob": (_swap_blobs, "are one blob"),
    "source is the weights": (_set("source.blob", 0), "are one blob"),
    "more blobs than named": (_set("blob_count", 5), "describes 4 of 5 blobs"),
    "fewer blobs than named": (_set("blob_count", 3), "refers to blob 3"),
    "no weights for the engine": (_set("weights", None), "describes 3 of 4 blobs"),
    "a stripped source still counted": (_set("source", None), "describes 3 of 4 blobs"),
    "digest too short": (_set("source.sha256", "ab"), "'sha256' of 'source'"),
    "digest in capitals": (_set("source.sha256", "A" * 64), "'sha256' of 'source'"),
    "huge size": (_set("source.size", 2**63), "'size' of 'source'"),
    "unknown dtype": (_set("inputs.0.dtype", "float24"), "'dtype' of input 'x'"),
    "attribute of torch as dtype": (_set("inputs.0.dtype", "ops"), "'dtype' of input 'x'"),
    "rank of 65": (_set("inputs.0.shape", [1] * 65), "rank 65"),
    "negative size": (_set("inputs.0.shape.1", -8), "a size of input 'x'"),
    "fraction as size": (_set("outputs.0.shape.1", 4.0), "is the fraction 4.0"),
    "min above opt": (_set("inputs.0.shape.0.min", 5), "min 5, opt 4, max 32"),
    "max below opt": (_set("inputs.0.shape.0.max", 3), "min 1, opt 4, max 3"),
    "size of a later input": (_set("inputs.0.shape.1", ["dim", 1, 0]), "refers to"),
    "size of no axis": (_set("outputs.0.shape.0", ["dim", 0, 2]), "refers to"),
    "range as an output size": (_set("outputs.0.shape.0", {"min": 1}), "has no .unknown."),
    "code as a size": (_set("outputs.0.shape.0", "__import__('os').abort()"), "a size of output"),
    "no inputs": (_set("inputs", []), "has no inputs"),
    "no outputs": (_set("outputs", []), "has no outputs"),
    "a weight twice": (_set("source_weights", ["a", "a"]), "distinct strings"),
    "unknown fallback": (_set("policy.fallback", "gpu"), "'fallback' of 'policy'"),
    "fallback is a list": (_set("policy.fallback", ["eager"]), "'fallback' of 'policy'"),
    "allowed engines are text": (_set("policy.engines", "onnxruntime"), "'engines' of 'policy'"),
    "device is text": (_set("engines.1.requires.device", "cpu"), "'device' of 'requires'"),
    "device is a number": (_set("engines.1.requires.device", 5), "'device' of 'requires'"),
    "no device": (_set("engines.1.requires.device", []), "'device' of 'requires'"),
    "requires nothing": (_set("engines.1.requires", {}), "'device' of 'requires'"),
    "capabilities are a number": (
        _set("engines.0.requires.compute_capabilities", 8.9),
        "'compute_capabilities' of 'requires'",
    ),
    "a name of two lines": (_set("name", "a\nforged: yes"), "'name' of the manifest"),
    "a name that no terminal takes": (_set("name", "\ud800"), "'name' of the manifest"),
    "a name of a megabyte": (_set("name", "x" * 1_000_000), "'name' of the manifest"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused(entry: dict[str, Any], name: str) -> None:
    edit, match = LIES[name]
    edit(entry)
    refused(encode(entry), match)


def test_a_newer_format_asks_for_a_newer_portrt(entry: dict[str, Any]) -> None:
    entry["format"] = manifests.FORMAT + 1
    assert refused(encode(entry)).remedy == "install a newer portrt"


def test_an_older_unknown_format_does_not(entry: dict[str, Any]) -> None:
    entry["format"] = 0
    assert "newer" not in refused(encode(entry)).remedy


def test_every_format_has_a_line_of_history() -> None:
    assert sorted(manifests.FORMAT_HISTORY) == list(range(1, manifests.FORMAT + 1))


GARBAGE = {
    "empty": "",
    "10 MB of zeros": "0" * 10_000_000,
    "10 MB of brackets": "[" * 10_000_000,
    "10 MB of objects": '{"a":' * 2_000_000,
    "10 MB of text": '"' + "x" * 10_000_000 + '"',
    "10 MB of NUL": "\0" * 10_000_000,
    "more than the limit": " " * (manifests.MAX_MANIFEST_CHARS + 1),
    "list": "[]",
    "null": "null",
    "cut short": '{"format":1',
    "two values": '{"format":1} {"format":1}',
    "key twice": '{"format":1,"format":1}',
    "inner key twice": '{"format":1,"policy":{"a":1,"a":2}}',
    "NaN": '{"format":1,"a":NaN}',
    "infinity": '{"format":1,"a":-Infinity}',
    "float beyond bounds": '{"format":1,"a":1e999}',
    "number of 5000 digits": '{"format":1,"a":' + "9" * 5000 + "}",
    "byte order mark": '\ufeff{"format":1}',
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_in_bounded_time(name: str) -> None:
    """10 MB take no more steps than one word."""
    with pytest.raises(PackageError) as caught, steps(1000):
        decode(GARBAGE[name])
    assert str(refused(GARBAGE[name])) == str(caught.value)


@pytest.mark.parametrize("levels", range(880, 1000, 5))
def test_a_field_nested_as_deep_as_json_goes_is_refused(text: str, levels: int) -> None:
    """The error message prints the value: that must not be what fails."""
    deep = "[" * levels + "]" * levels
    refused(text.replace('"name":"block_0"', f'"name":{deep}'))
    refused(text.replace('["dim",0,0]', f'["dim",{deep},0]'))


def test_a_manifest_of_many_inputs_is_read_in_bounded_time(entry: dict[str, Any]) -> None:
    """Twice as many take at most twice the steps."""
    shape = [["dim", 0, 0], 8]

    def many(count: int) -> str:
        more = [{"name": f"x{i}", "dtype": "float32", "shape": shape} for i in range(count)]
        return encode({**entry, "inputs": entry["inputs"] + more})

    one, two = many(5_000), many(10_000)
    with steps(10**7) as half:
        assert len(decode(one).inputs) == 5_001
    with steps(2 * half.taken):
        assert len(decode(two).inputs) == 10_001
    assert len(decode(many(60_000)).inputs) == 60_001


@pytest.mark.parametrize("sizes", [[], [1], [1, 2, 3], [1, 2, 3, 4, 5]])
def test_another_number_of_blobs_is_refused(text: str, sizes: list[int]) -> None:
    with pytest.raises(PackageError, match=f"has {len(sizes)} blobs"):
        manifests.check_blob_sizes(decode(text), sizes)


def test_another_size_of_a_blob_is_refused(text: str) -> None:
    found = decode(text)
    sizes = [found.weights.size, found.source.size, *(item.data.size for item in found.engines)]
    manifests.check_blob_sizes(found, sizes)
    for index, label in enumerate(["the weights", "the source", *ENGINES]):
        wrong = [size + (place == index) for place, size in enumerate(sizes)]
        with pytest.raises(PackageError, match=f"{label}.* of block 'block_0' has"):
            manifests.check_blob_sizes(found, wrong)


def test_a_digest_is_that_of_the_bytes() -> None:
    blob = Blob.of(0, b"abc")
    check_digest(b"abc", blob, "it")
    with pytest.raises(PackageError, match=r"^it is damaged"):
        check_digest(b"abd", blob, "it")


def test_mutated_manifests_are_read_or_refused(text: str) -> None:
    rng = random.Random(0)
    words = [
        "null",
        "true",
        "1e999",
        "-1",
        "[]",
        "{}",
        '"dim"',
        "[[]]",
        "9" * 30,
        '{"min":1}',
        "NaN",
    ]
    refusals = 0
    for _ in range(4000):
        spoilt = text
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(spoilt))
            action = rng.random()
            if action < 0.3:
                spoilt = (
                    spoilt[:place]
                    + rng.choice('0123456789[]{},:"ae.-\x00\u2028')
                    + spoilt[place + 1 :]
                )
            elif action < 0.5:
                spoilt = spoilt[:place] + spoilt[place + rng.randint(1, 30) :]
            elif action < 0.7:
                other = rng.randrange(len(spoilt))
                spoilt = spoilt[:place] + spoilt[other : other + 30] + spoilt[place:]
            else:
                start = spoilt.find(":", place) + 1
                ends = [spoilt.find(mark, start) for mark in ",}"]
                end = min((where for where in ends if where > 0), default=start)
                spoilt = spoilt[:start] + rng.choice(words) + spoilt[end:]
        try:
            decode(spoilt)
        except PackageError:
            refusals += 1
    assert refusals > 3000
