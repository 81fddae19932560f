"""Cases of `conformance/weights.json`: headers of weights images, with offsets by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Case = dict[str, Any]

# safetensors' names -> torch's, and bytes of an element.
DTYPES = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "C64": ("complex64", 8),
}
LIMIT = 2**62


def entry(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


# Two tensors in 64 bytes.
BASE = {"a": entry("F32", [3, 4], 0, 48), "b": entry("U8", [16], 48, 64)}


def good(name: str, header: dict[str, Any], data: int = 64, text: str | None = None) -> Case:
    text = json.dumps(header) if text is None else text
    start = 8 + len(text)
    entries = {
        key: {
            "dtype": DTYPES[item["dtype"]][0],
            "shape": item["shape"],
            "offset": start + item["data_offsets"][0],
            "size": item["data_offsets"][1] - item["data_offsets"][0],
        }
        for key, item in header.items()
        if key != "__metadata__"
    }
    return {"name": name, "header": text, "data": data, "valid": True, "entries": entries}


def bad(name: str, header: Any, data: int = 64, **more: Any) -> Case:
    text = header if isinstance(header, str) else json.dumps(header)
    return {"name": name, "header": text, "data": data, "valid": False, **more}


def good_cases() -> Iterator[Case]:
    yield good("two tensors", BASE)
    yield good("no tensors", {}, 0)
    yield good("spaces behind the header", BASE, text=json.dumps(BASE) + " " * 37)
    yield good("metadata", {"__metadata__": {"by": "another tool"}, **BASE})
    yield good("the second tensor first", dict(reversed(BASE.items())))
    yield good("unknown fields of a tensor", {"a": {**BASE["a"], "note": 5}, "b": BASE["b"]})
    yield good("a name that is escaped", {"a": BASE["a"], "w\u00e4ge\n\U0001f600": BASE["b"]})
    yield good("a name that is empty", {"": BASE["a"], "b": BASE["b"]})
    yield good("rank 0", {"a": entry("F64", [], 0, 8)}, 8)
    yield good("rank 64", {"a": entry("U8", [1] * 64, 0, 1)}, 1)
    yield good("an empty tensor between two", {**BASE, "e": entry("F64", [0], 48, 48)})
    yield good("empty tensors alone", {"a": entry("F32", [0, 5], 0, 0)}, 0)
    yield good("an empty tensor of the largest size", {"a": entry("I8", [0, LIMIT], 0, 0)}, 0)
    for dtype, (_, size) in DTYPES.items():
        yield good(f"dtype {dtype}", {"a": entry(dtype, [3], 0, 3 * size)}, 3 * size)


def with_shape(shape: Any) -> dict[str, Any]:
    return {**BASE, "a": {**BASE["a"], "shape": shape}}


def with_offsets(offsets: Any) -> dict[str, Any]:
    return {**BASE, "a": {**BASE["a"], "data_offsets": offsets}}


def bad_entries() -> Iterator[Case]:
    for value in (None, 5, [], "a"):
        yield bad(f"a tensor that is {json.dumps(value)}", {**BASE, "a": value})
    for key in ("dtype", "shape", "data_offsets"):
        item = {name: value for name, value in BASE["a"].items() if name != key}
        yield bad(f"a tensor without {key}", {**BASE, "a": item})
    for dtype in (None, 5, "", "F4", "f32", "float32", "C128"):
        item = {**BASE["a"], "dtype": dtype}
        yield bad(f"dtype {json.dumps(dtype)}", {**BASE, "a": item})
    for shape in (
        *(None, 12, "12", {}, [3, 4.0], [3, True], [3, None], [-3, -4], [3, 4, -1]),
        *([2, 4], [3, 4, 2], [LIMIT + 1], [2**64], [10**30], [LIMIT, 0, 2], [0, LIMIT, LIMIT]),
    ):
        yield bad(f"shape {json.dumps(shape)}", with_shape(shape))
    yield bad("rank 65", with_shape([12, *[1] * 64]))
    offsets: Sequence[Any] = (
        *(None, 48, "0,48", {}, [], [0], [0, 48, 64], [0, 48.0], [0, True], [-1, 47]),
        *([48, 0], [0, 47], [1, 48], [0, 10**30], [LIMIT, LIMIT + 48], [2**64, 2**64 + 48]),
    )
    for value in offsets:
        yield bad(f"offsets {json.dumps(value)}", with_offsets(value))


def bad_cover() -> Iterator[Case]:
    yield bad("a byte behind the last tensor", BASE, 65)
    yield bad("a byte too few", BASE, 63)
    yield bad("no data", BASE, 0)
    yield bad("data of no tensor", {}, 1)
    yield bad("a hole before the first tensor", {"a": entry("U8", [8], 1, 9)}, 9)
    hole = {"a": BASE["a"], "b": entry("U8", [15], 49, 64)}
    yield bad("a hole between tensors", hole)
    overlap = {"a": BASE["a"], "b": entry("U8", [17], 47, 64)}
    yield bad("an overlap", overlap)
    yield bad("two tensors in one place", {**BASE, "c": BASE["b"]})
    inside = {**BASE, "e": entry("F64", [0], 8, 8)}
    yield bad("an empty tensor inside another", inside)
    beyond = {**BASE, "e": entry("F64", [0], 65, 65)}
    yield bad("an empty tensor behind the end", beyond)


def bad_headers() -> Iterator[Case]:
    text = json.dumps(BASE)
    for value in ("[]", "null", "5", '"text"'):
        yield bad(f"the header is {value}", value, 0)
    yield bad("no header", "", 0)
    yield bad("one space", " ", 0)
    yield bad("cut short", text[:-1])
    yield bad("two values", text + "{}")
    yield bad("a tensor twice", text[:-1] + ', "b": ' + json.dumps(BASE["b"]) + "}")
    yield bad("a tensor twice, once as escape", text.replace('"b":', '"\\u0061":'))
    yield bad("byte order mark", "\ufeff" + text)
    yield bad("NaN", text.replace("[16]", "[NaN]"))
    for length in (0, 1, len(text) - 1, len(text) + 1, len(text) + 64, 100_000_001):
        yield bad(f"a header of {length} bytes by its length", BASE, length=length)
    for length in (2**31, 2**32 + len(text), 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 8):
        yield bad(f"a length of {length}", BASE, length=length)
    for total in (0, 1, 7, 8, 9):
        yield bad(f"an image of {total} bytes", BASE, total=total)


def cases() -> list[Case]:
    return [*good_cases(), *bad_entries(), *bad_cover(), *bad_headers()]
