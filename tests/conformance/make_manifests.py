"""Cases of `conformance/manifests.json`: a good manifest, and copies of it with one fault each."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

Case = dict[str, Any]

DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"),
    *("complex64", "complex128"),
)
LIMIT = 2**62
MISSING = object()


def blob(index: int, size: int = 64) -> dict[str, Any]:
    return {"blob": index, "size": size, "sha256": f"{index}a" * 32}


def dimension(**more: Any) -> dict[str, Any]:
    return {"min": 1, "opt": 4, "max": 8, "symbol": "n", **more}


def base() -> dict[str, Any]:
    """A manifest with something in every field."""
    return {
        "format": 2,
        "name": "block_0",
        "producer": {"portrt": "1.0", "torch": "2.12"},
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": [dimension(), 3]},
            {"name": "y", "dtype": "int64", "shape": [["dim", 0, 0]]},
        ],
        "outputs": [
            {"name": "out", "dtype": "float32", "shape": [["mul", 2, ["dim", 0, 0]], 5]},
            {"name": "found", "dtype": "int64", "shape": [{"unknown": 24, "symbol": "u0"}]},
        ],
        "weights": blob(0),
        "source": blob(1),
        "source_weights": ["w"],
        "node_count": 7,
        "engines": [
            {
                "backend": "tensorrt",
                "data": blob(2),
                "build": {"library": "tensorrt", "version": "10.13.3.9"},
                "requires": {
                    "device": ["cuda"],
                    "compute_capabilities": ["8.9"],
                    "tensorrt": "10.13.3.9",
                    "os": ["linux"],
                    "arch": ["x86_64"],
                },
                "weights": ["w"],
                "check": {"skipped": "no GPU"},
            }
        ],
        "policy": {"fallback": "eager", "engines": None},
        "blob_count": 3,
    }


def in_parts(*edits: tuple[str, Any]) -> dict[str, Any]:
    """The base with an engine in two parts before its engine, with other values."""
    manifest = base()
    engine = manifest["engines"][0]
    parts = [{**copy.deepcopy(engine), "name": f"p{i}", "data": blob(4 + i)} for i in (0, 1)]
    program = {**copy.deepcopy(engine), "data": blob(3), "check": None}
    program["parts"] = {"nodes": 7, "nodes_in_engines": 5, "engines": parts}
    manifest.update(format=3, engines=[program, engine], blob_count=6)
    return edited(*edits, of=manifest)


def text_of(manifest: Any) -> str:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"))


def keys_of(path: str) -> list[str | int]:
    return [int(key) if key.isdigit() else key for key in path.split("/")[1:]]


def edited(*edits: tuple[str, Any], of: dict[str, Any] | None = None) -> dict[str, Any]:
    """The base, or another manifest, with other values; one that is MISSING is taken out."""
    manifest = base() if of is None else of
    for path, value in edits:
        *parents, last = keys_of(path)
        holder: Any = manifest
        for key in parents:
            holder = holder[key]
        if value is MISSING:
            del holder[last]
        else:
            holder[last] = value
    return manifest


def good(name: str, manifest: dict[str, Any], text: Any = None) -> Case:
    specs = {
        kind: [{key: spec[key] for key in ("name", "dtype", "shape")} for spec in manifest[kind]]
        for kind in ("inputs", "outputs")
    }
    facts = {
        "format": manifest["format"],
        "name": manifest["name"],
        **specs,
        "engines": [engine["backend"] for engine in manifest["engines"]],
        "blobs": [
            None if entry is None else entry["blob"]
            for entry in (
                manifest["weights"],
                manifest["source"],
                *(engine["data"] for engine in manifest["engines"]),
            )
        ],
        "blob_count": manifest["blob_count"],
    }
    parts = [engine.get("parts") for engine in manifest["engines"]]
    if any(parts):
        facts["parts"] = [
            [[part["name"], part["data"]["blob"]] for part in found["engines"]] if found else None
            for found in parts
        ]
    return {"name": name, "manifest": text or text_of(manifest), "valid": True, "facts": facts}


def bad(name: str, field: str, manifest: Any) -> Case:
    """A text, pieces of one, or plain values, with the field at fault."""
    given = text_of(manifest) if isinstance(manifest, dict) else manifest
    return {"name": name, "manifest": given, "valid": False, "field": field}


def single(**fields: Any) -> dict[str, Any]:
    """The least that a manifest can have."""
    return {
        "format": 1,
        "name": "block_0",
        "producer": {},
        "inputs": [{"name": "x", "dtype": "float32", "shape": [2]}],
        "outputs": [{"name": "out", "dtype": "float32", "shape": [2]}],
        "weights": None,
        "source": blob(0),
        "source_weights": [],
        "node_count": 1,
        "engines": [],
        "policy": {},
        "blob_count": 1,
        **fields,
    }


def shaped(kind: str, *sizes: Any) -> dict[str, Any]:
    """One input or output of such a shape."""
    return edited((f"/{kind}/0/shape", list(sizes)), *_consistent(kind))


def _consistent(kind: str) -> list[tuple[str, Any]]:
    """Nothing else that refers to a first input of the base's shape."""
    if kind == "outputs":
        return []
    return [("/inputs/1/shape", [2]), ("/outputs/0/shape", [2])]


def nested(levels: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for _ in range(levels):
        tree = {"a": tree}
    return tree


def good_cases() -> Iterator[Case]:
    yield good("the least of version 1", single())
    yield good("the least of version 2", single(format=2))
    yield good("the least of version 3", single(format=3))
    yield good("an engine in parts", in_parts())
    one = in_parts(("/engines/0/parts/engines", in_parts()["engines"][0]["parts"]["engines"][:1]))
    yield good("an engine of one part", edited(("/blob_count", 5), of=one))
    yield good("parts that are null", edited(("/engines/0/parts", None)))
    yield good("everything", base())
    loose = dict(reversed(base().items()))
    yield good("other order and spaces", base(), json.dumps(loose, indent=1))
    noted = edited(("/note", {"by": "another tool"}), ("/engines/0/note", [1, 2.5, None]))
    yield good("unknown fields", noted)
    yield good("no source", single(source=None, blob_count=0))
    adopted = base()["engines"]
    adopted[0].update(data=blob(0), weights=[])
    yield good("one engine alone", single(source=None, engines=adopted))
    yield good("blobs in another order", edited(("/weights/blob", 2), ("/engines/0/data/blob", 0)))
    yield good("empty blob", edited(("/weights/size", 0)))
    yield good("blob of the largest size", edited(("/weights/size", LIMIT)))
    yield good("unknown backend", edited(("/engines/0/backend", "of_tomorrow")))
    yield good("unknown requirement", edited(("/engines/0/requires/memory", {"bytes": 1})))
    yield good("a requirement alone", edited(("/engines/0/requires", {"device": ["cpu"]})))
    yield good("no check", edited(("/engines/0/check", None)))
    for name, program in PROGRAMS.items():
        check = {"device": "cuda", "outputs": [], "program": program}
        yield good(name, edited(("/engines/0/check", check)))
    for trees in ([], [["dim", 0, 0], ["add", ["dim", 1, 0], -1], 2]):
        sizes = edited(("/engines/0/requires/nonzero_sizes", trees))
        yield good(f"{len(trees)} sizes that must not be 0", sizes)
    own = "/engines/0/parts/engines/0/requires/nonzero_sizes"
    yield good("sizes of a part's own inputs", in_parts((own, [["dim", 7, 5]])))
    yield good("a part of all nodes", in_parts(("/engines/0/parts/nodes_in_engines", 7)))
    yield good("empty facts of a build", edited(("/engines/0/build", {})))
    sizes = [{"shapes": [[1, 3]], "seconds": 0.001, "spread": 0.1}]
    times = {
        "goal": "latency",
        "cpu": "A",
        "os": "linux",
        "threads": 2,
        "sizes": sizes,
        "ratio": 1.0,
    }
    for name, entry in (("times", times), ("times of a later version", 7)):
        yield good(f"{name} of an engine", edited(("/engines/0/build", {"measured": entry})))
    yield good("a build of 32 levels", edited(("/engines/0/build", nested(32))))
    policy = {"fallback": "error", "engines": [], "rebuild": 3, "check": "?", "cuda_graphs": "x"}
    yield good("a policy with values of a later version", edited(("/policy", policy)))
    yield good("a policy without a value", edited(("/policy", {"fallback": None})))
    yield good(
        "names of other alphabets", edited(("/name", "Bl\u00f6cke \u5757 \u0431\u043b\u043e\u043a"))
    )
    yield good("name of 1024 characters", edited(("/name", "n" * 1024)))
    yield good("name of 1024 letters of 4 bytes", edited(("/name", "\U00010400" * 1024)))
    lone = edited(("/source_weights", ["\ud800", "\udc00", "\ud800\u0041"]))
    yield good("names of weights with half a pair", lone)
    yield good("an unknown integer of 100 digits", edited(("/note", [10**99, -(10**99)])))
    yield good("an unknown float next to 0", single(), text_of(single())[:-1] + ',"z":1e-999}')
    yield good(
        "minus zero",
        single(node_count=0),
        text_of(single(node_count=1)).replace('"node_count":1', '"node_count":-0'),
    )
    yield good("other escapes and a solidus", edited(("/note", 'a"\\/\b\f\n\r\t\u0000')))
    deep = [['{"z":', 1], ["[", 400], ["]", 400], ["," + text_of(single())[1:], 1]]
    yield good("an unknown list of 400 levels", single(), deep)
    yield good(
        "name with an escape for nothing",
        single(),
        text_of(single()).replace("block", "bl\\u006fck"),
    )
    yield good("no upper bound", shaped("inputs", dimension(max=None)))
    yield good("a range of one size", shaped("inputs", dimension(min=4, opt=4, max=4)))
    yield good("a range from zero", shaped("inputs", dimension(min=0, opt=0, max=LIMIT)))
    profiles = [[1, 2, 4], [4, 8, 8]]
    yield good("profiles", shaped("inputs", dimension(profiles=profiles)))
    yield good(
        "profiles of two dimensions",
        shaped("inputs", dimension(profiles=profiles), dimension(profiles=profiles, symbol="m")),
    )
    yield good("no profiles in a list", shaped("inputs", dimension(profiles=[])))
    yield good(
        "profile without an upper bound",
        shaped("inputs", dimension(max=None, profiles=[[1, 2, LIMIT]])),
    )
    yield good("a condition on its own input", shaped("inputs", 4, ["dim", 0, 0]))
    yield good("unknown without a bound", shaped("outputs", {"unknown": None, "symbol": "u0"}))
    yield good("unknown of at most zero", shaped("outputs", {"unknown": 0, "symbol": "u0"}))
    yield good("one unknown size twice", shaped("outputs", *[{"unknown": 24, "symbol": "u0"}] * 2))
    for kind in ("inputs", "outputs"):
        yield good(f"rank 0 of {kind}", shaped(kind))
        yield good(f"rank 64 of {kind}", shaped(kind, *[1] * 64))
        yield good(f"sizes 0 and 2^62 of {kind}", shaped(kind, 0, LIMIT))
    many = [{"name": f"x{i}", "dtype": dtype, "shape": [2]} for i, dtype in enumerate(DTYPES)]
    yield good("every dtype", single(inputs=many))


# `program` of a check: what was compared with the captured model.
PROGRAMS = {
    "a program that was compared": {
        "compared": 3,
        "skipped": 1,
        "failed": 0,
        "sizes": {"x[0]": [1, 4]},
        "max_rel": 1.5e-07,
    },
    "a program of fixed sizes that was compared": {
        "compared": 1,
        "skipped": 0,
        "failed": 0,
        "sizes": {},
        "max_rel": 0.0,
    },
}

WRONG = {
    "text": (None, 5, ["a"]),
    "integer": (None, True, 1.0, -1, LIMIT + 1, "1"),
    "object": (None, [], "a"),
    "list": (None, {}, "a"),
    "names": (None, {}, "a", [5], ["a", "a"]),
    "blob or null": (5, [], {}),
    "dtype": (None, 5, "", "float24", "torch.float32", "Float32"),
    "digest": (None, 5, "", "0" * 63, "0" * 65, "A" * 64, "g" * 64),
}
FIELDS = {
    "/name": "text",
    "/producer": "object",
    "/producer/torch": "text",
    "/inputs": "list",
    "/inputs/0": "object",
    "/inputs/0/name": "text",
    "/inputs/0/dtype": "dtype",
    "/inputs/0/shape": "list",
    "/inputs/0/shape/0/min": "integer",
    "/inputs/0/shape/0/opt": "integer",
    "/inputs/0/shape/0/symbol": "text",
    "/outputs": "list",
    "/outputs/1": "object",
    "/outputs/0/name": "text",
    "/outputs/0/dtype": "dtype",
    "/outputs/0/shape": "list",
    "/outputs/1/shape/0/symbol": "text",
    "/weights": "blob or null",
    "/weights/blob": "integer",
    "/source": "blob or null",
    "/source/blob": "integer",
    "/source/size": "integer",
    "/source/sha256": "digest",
    "/source_weights": "names",
    "/node_count": "integer",
    "/engines": "list",
    "/engines/0": "object",
    "/engines/0/backend": "text",
    "/engines/0/data": "object",
    "/engines/0/data/blob": "integer",
    "/engines/0/data/size": "integer",
    "/engines/0/data/sha256": "digest",
    "/engines/0/build": "object",
    "/engines/0/requires": "object",
    "/engines/0/requires/device": "names",
    "/engines/0/weights": "names",
    "/policy": "object",
    "/blob_count": "integer",
}
# Values of the right type in the wrong place: the field at fault is in them.
INSIDE = {"/weights", "/source"}


def bad_fields() -> Iterator[Case]:
    """Every field that the format fixes: not there, and of other types."""
    for path, kind in FIELDS.items():
        if not path.rpartition("/")[2].isdigit() and path != "/producer/torch":
            yield bad(f"{path} is not there", path, edited((path, MISSING)))
        for value in WRONG[kind]:
            field = f"{path}/sha256" if value == {} and path in INSIDE else path
            yield bad(f"{path} is {shown(value)}", field, edited((path, value)))
    for path in ("/inputs/0/shape/0/max", "/outputs/1/shape/0/unknown", "/engines/0/check"):
        yield bad(f"{path} is not there", path, edited((path, MISSING)))
    for path in ("/inputs/0/shape/0/max", "/outputs/1/shape/0/unknown"):
        for value in (True, 8.0, -1, LIMIT + 1, "8", []):
            yield bad(f"{path} is {shown(value)}", path, edited((path, value)))
    for value in (5, [], "yes"):
        yield bad(
            f"/engines/0/check is {shown(value)}",
            "/engines/0/check",
            edited(("/engines/0/check", value)),
        )


def shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 30 else f"{text[:8]}... of {len(value)}"


def bad_json() -> Iterator[Case]:
    text = text_of(single())
    yield bad("empty", "", "")
    yield bad("cut short", "", text[:-1])
    yield bad("two values", "", text + text)
    yield bad("byte order mark", "", "\ufeff" + text)
    for value in ("[]", "null", "5", '"text"'):
        yield bad(f"the manifest is {value}", "", value)
    yield bad("single quotes", "", text.replace('"', "'"))
    yield bad("comma at the end", "", text[:-1] + ",}")
    yield bad("comment", "", "/**/" + text)
    yield bad("key twice", "", text[:-1] + ',"name":"block_0"}')
    yield bad("key twice, once as escape", "", text[:-1] + ',"n\\u0061me":"block_0"}')
    yield bad("inner key twice", "", text.replace('"policy":{}', '"policy":{"a":1,"a":1}'))
    yield bad("key twice in an unknown field", "", text[:-1] + ',"note":{"a":1,"a":1}}')
    for constant in ("NaN", "Infinity", "-Infinity"):
        yield bad(constant, "", text.replace('"policy":{}', f'"policy":{{"a":{constant}}}'))
    for number in ("1e999", "-1e999"):
        yield bad(
            f"the float {number}", "", text.replace('"policy":{}', f'"policy":{{"a":{number}}}')
        )
    yield bad("a line break in a string", "", text.replace("block_0", "block\n0"))
    for escape in ("\\x41", "\\u12g4", "\\u12", "\\u{41}", "\\'", "\\U00000041", "\\"):
        yield bad(f"the escape {escape}", "", text.replace("block_0", escape))
    for number in ("01", "-01", "+1", "1.", ".5", "1e", "1e+", "0x1", "1_0", "--1", "-", "1f"):
        fault = text.replace('"node_count":1', f'"node_count":{number}')
        yield bad(f"the number {number}", "", fault)
    for word in ("True", "None", "nul", "truee", "undefined"):
        yield bad(f"the word {word}", "", text.replace('"weights":null', f'"weights":{word}'))
    yield bad("no comma", "", text.replace(',"', ' "', 1))
    yield bad("no colon", "", text.replace('":', '" ', 1))
    yield bad("a key that is a number", "", text.replace('"policy":{}', '"policy":{1:2}'))
    yield bad("form feed between values", "", text.replace(",", ",\f", 1))
    yield bad("no-break space between values", "", text.replace(",", ",\u00a0", 1))
    yield bad("NUL behind the end", "", text + "\0")
    yield bad("more characters than the limit", "", [[" ", (16 << 20) + 1], [text, 1]])
    yield bad("brackets without end", "", [["[", 1_000_000]])
    yield bad("objects without end", "", [['{"a":', 1_000_000]])


def bad_format() -> Iterator[Case]:
    for value in (MISSING, None, 0, -1, 4, 2**64, 1.0, "1", True, [1]):
        what = "not there" if value is MISSING else json.dumps(value)
        yield bad(f"format is {what}", "/format", edited(("/format", value)))
    first = edited(("/format", 1))
    yield bad("data-dependent size in version 1", "/outputs/1/shape/0", first)


def bad_parts() -> Iterator[Case]:
    parts, first = "/engines/0/parts", "/engines/0/parts/engines/0"
    for version in (1, 2):
        known = [("/outputs/1/shape/0", 3)] if version == 1 else []
        given = in_parts(("/format", version), *known)
        yield bad(f"an engine in parts in version {version}", parts, given)
    for path, kind in {
        f"{parts}/nodes": "integer",
        f"{parts}/nodes_in_engines": "integer",
        f"{parts}/engines": "list",
        first: "object",
        f"{first}/name": "text",
        f"{first}/backend": "text",
        f"{first}/data": "object",
        f"{first}/data/blob": "integer",
        f"{first}/data/sha256": "digest",
        f"{first}/build": "object",
        f"{first}/requires": "object",
        f"{first}/weights": "names",
    }.items():
        if not path.rpartition("/")[2].isdigit():
            yield bad(f"{path} is not there", path, in_parts((path, MISSING)))
        for value in WRONG[kind]:
            yield bad(f"{path} is {shown(value)}", path, in_parts((path, value)))
    for value in (5, [], "yes", True):
        yield bad(f"{parts} is {shown(value)}", parts, in_parts((parts, value)))
    yield bad("no parts", f"{parts}/engines", in_parts((f"{parts}/engines", [])))
    inside = f"{parts}/nodes_in_engines"
    yield bad("more nodes in parts than in the block", inside, in_parts((inside, 8)))
    sizes = f"{first}/requires/nonzero_sizes"
    yield bad("sizes of a part that are a text", sizes, in_parts((sizes, "dim")))
    twice = in_parts((f"{parts}/engines/1/name", "p0"))
    yield bad("two parts of one name", f"{parts}/engines/1/name", twice)
    other = in_parts((f"{first}/backend", "onnxruntime"))
    yield bad("a part of another backend", f"{first}/backend", other)
    inner = in_parts()["engines"][0]["parts"]
    yield bad("parts in a part", f"{first}/parts", in_parts((f"{first}/parts", inner)))
    text = text_of(in_parts((f"{first}/parts", "here")))
    deep = [['{"engines":[{"parts":', 300], ["null", 1], ["}]}", 300]]
    before, after = text.split('"here"')
    yield bad("parts in parts of parts", f"{first}/parts", [[before, 1], *deep, [after, 1]])
    missing = in_parts(("/blob_count", 5))
    yield bad("a part's blob is none of the call's", f"{parts}/engines/1/data/blob", missing)
    shared = in_parts((f"{parts}/engines/1/data/blob", 4), ("/blob_count", 5))
    yield bad("two parts of one blob", f"{parts}/engines/1/data/blob", shared)


def bad_values() -> Iterator[Case]:
    for what, value in (
        ("line break", "a\nb"),
        ("NUL", "a\0"),
        ("DEL", "a\x7f"),
        ("line separator", "a\u2028"),
        ("direction override", "a\u202e"),
        ("no-break space", "a\u00a0b"),
        ("soft hyphen", "a\u00adb"),
        ("private use", "a\ue000"),
        ("half a pair", "a\ud800"),
        ("the other half of a pair", "\udc00a"),
        ("a character that is none", "a\uffff"),
        ("the last character of all", "\U0010ffff"),
        ("1025 letters of 4 bytes", "\U00010400" * 1025),
        ("1025 characters", "n" * 1025),
    ):
        yield bad(f"name with {what}", "/name", edited(("/name", value)))
    slashed = edited(("/producer", {"a/b~c": 5}))
    yield bad("escapes in the pointer", "/producer/a~1b~0c", slashed)
    yield bad("no inputs", "/inputs", edited(("/inputs", [])))
    yield bad("no outputs", "/outputs", edited(("/outputs", [])))
    yield bad("65537 engines", "/engines", _many_engines())
    yield bad("too deep a build", "/engines/0/build", edited(("/engines/0/build", nested(33))))
    check = ("/engines/0/check", nested(33))
    yield bad("too deep a check", "/engines/0/check", edited(check))
    deep = {"device": ["cuda"], "a": nested(33)}
    yield bad("too deep a requires", "/engines/0/requires", edited(("/engines/0/requires", deep)))
    yield bad(
        "no device type", "/engines/0/requires/device", edited(("/engines/0/requires/device", []))
    )
    for key, values in {
        "compute_capabilities": ("8.9", 8.9, [8.9], None),
        "os": ("linux", 5, [None]),
        "arch": ("x86_64", 5, {}),
        "host_code": (1, "yes", None),
        "version_compatible": (1, "yes", None),
        "compute_capability_min": (8.0, None, ["8.0"]),
        "cuda": (12, None),
        "tensorrt": (10, None, ["10.0"]),
        "tensorrt_rtx": (1.7, None),
        "onnxruntime": (1.23, None),
        "torch": (2.13, None, ["2.13.0"]),
        "cpu_features": ("avx2", 5, [5], ["avx2", "avx2"], None),
    }.items():
        path = f"/engines/0/requires/{key}"
        for value in values:
            yield bad(f"{path} is {shown(value)}", path, edited((path, value)))
    at = "/engines/0/requires/nonzero_sizes"
    for value in ("dim", 5, None, {}):
        yield bad(f"{at} is {shown(value)}", at, edited((at, value)))
    for tree in (None, "dim", ["dim", 2, 0], ["dim", 0, 2], ["exec", 1], ["truediv", 4, 2]):
        given = edited((at, [["dim", 0, 0], tree]))
        yield bad(f"a size that must not be 0 is {shown(tree)}", f"{at}/1", given)
    for value in ("gpu", ["eager"], True, 5):
        yield bad(
            f"fallback is {shown(value)}", "/policy/fallback", edited(("/policy/fallback", value))
        )
    for value in ("onnxruntime", 5, [5], ["tensorrt", "tensorrt"]):
        yield bad(
            f"allowed engines are {shown(value)}",
            "/policy/engines",
            edited(("/policy/engines", value)),
        )


def _many_engines() -> list[list[Any]]:
    before, after = text_of(edited(("/engines", []))).split('"engines":[]')[:2]
    return [[before + '"engines":[', 1], ["null,", 65_536], ["null]" + after, 1]]


def bad_shapes() -> Iterator[Case]:
    for kind in ("inputs", "outputs"):
        at = f"/{kind}/0/shape"
        yield bad(f"rank 65 of {kind}", at, shaped(kind, *[1] * 65))
        for size in (-1, LIMIT + 1, 2**64, 4.0, True, None, "4", "__import__('os').abort()"):
            yield bad(f"size {shown(size)} of {kind}", f"{at}/1", shaped(kind, 2, size))
        yield bad(f"empty tree of {kind}", f"{at}/0", shaped(kind, []))
        yield bad(f"unknown operator of {kind}", f"{at}/0", shaped(kind, ["exec", 1]))
        yield bad(
            f"fault within a tree of {kind}",
            f"{at}/0/1/2",
            shaped(kind, ["floor", ["truediv", 4, None]]),
        )
        yield bad(f"fraction of {kind}", f"{at}/0", shaped(kind, ["truediv", 4, 2]))
        yield bad(f"input beyond those of {kind}", f"{at}/0", shaped(kind, ["dim", 2, 0]))
    at = "/inputs/0/shape/0"
    yield bad("size of a later input", at, shaped("inputs", ["dim", 1, 0]))
    yield bad("axis beyond the rank", "/outputs/0/shape/0", shaped("outputs", ["dim", 0, 2]))
    for name, more in {
        "min above opt": {"min": 5},
        "opt above max": {"opt": 9},
        "min above max": {"min": 9, "opt": 9},
    }.items():
        yield bad(name, at, shaped("inputs", dimension(**more)))
    for profile in (
        [1, 2],
        [1, 2, 3, 4],
        [2, 1, 4],
        [1, 4, 2],
        [0, 1, 2],
        [1, 2, 9],
        [1, 2.0, 4],
        [1, True, 4],
        5,
        None,
    ):
        one = shaped("inputs", dimension(profiles=[[1, 2, 4], profile]))
        yield bad(f"profile {shown(profile)}", f"{at}/profiles/1", one)
    endless = dimension(max=None, profiles=[[1, 2, LIMIT + 1]])
    yield bad("profile beyond 2^62", f"{at}/profiles/0", shaped("inputs", endless))
    for value in (None, {}, 5):
        yield bad(
            f"profiles are {shown(value)}",
            f"{at}/profiles",
            shaped("inputs", dimension(profiles=value)),
        )
    uneven = shaped(
        "inputs", dimension(profiles=[[1, 2, 4]] * 2), 3, dimension(profiles=[[1, 2, 4]])
    )
    yield bad("other number of profiles", "/inputs/0/shape/2/profiles", uneven)
    yield bad("range of an output", "/outputs/0/shape/0/unknown", shaped("outputs", dimension()))
    unknown = {"unknown": 4, "symbol": "u0"}
    yield bad("data-dependent size of an input", f"{at}/min", shaped("inputs", unknown))


def bad_blobs() -> Iterator[Case]:
    for path in ("/weights", "/source", "/engines/0/data"):
        beyond = edited((f"{path}/blob", 3))
        yield bad(f"{path} beyond the call", f"{path}/blob", beyond)
    yield bad("source is the weights", "/source/blob", edited(("/source/blob", 0)))
    yield bad("engine is the source", "/engines/0/data/blob", edited(("/engines/0/data/blob", 1)))
    both = base()
    both["engines"].append(copy.deepcopy(both["engines"][0]))
    yield bad("two engines are one blob", "/engines/1/data/blob", both)
    yield bad("a blob without an entry", "/blob_count", edited(("/blob_count", 4)))
    yield bad("a stripped source still counted", "/blob_count", edited(("/source", None)))
    bare = [
        ("/weights", None),
        ("/source/blob", 0),
        ("/engines/0/data/blob", 1),
        ("/blob_count", 2),
    ]
    yield bad(
        "weights of a source are not there", "/weights", edited(*bare, ("/engines/0/weights", []))
    )
    yield bad(
        "weights of an engine are not there", "/weights", edited(*bare, ("/source_weights", []))
    )


def cases() -> list[Case]:
    return [
        *good_cases(),
        *bad_json(),
        *bad_format(),
        *bad_fields(),
        *bad_parts(),
        *bad_values(),
        *bad_shapes(),
        *bad_blobs(),
    ]
