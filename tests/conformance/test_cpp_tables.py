"""Tables that the C++ core repeats are those of the Python modules."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

from portrt.format import archive, dimensions, json_fields, manifest, size_expr
from portrt.targets import backends, cpu_features
from portrt.targets.trust import TRUSTS
from portrt.verdict import CODES

CORE = Path(__file__).parents[2] / "csrc" / "core"


def texts(path: str, begin: str) -> list[str]:
    """The string literals of a table that begins with this text."""
    source = (CORE / path).read_text(encoding="utf-8")
    table = source[source.index(begin) + len(begin) :]
    return re.findall(r'"([^"]*)"', table[: table.index("};")])


def constants(path: str) -> dict[str, int]:
    """The integers that a header defines."""
    source = (CORE / path).read_text(encoding="utf-8")
    found = re.findall(r"constexpr \w+ (k\w+) = (?:\w+\{(\d+)\} << )?(\d+);", source)
    return {name: int(base) << int(last) if base else int(last) for name, base, last in found}


def test_characters_that_are_not_printable() -> None:
    """Those of this Python, but for what another version of Unicode assigns or does not yet."""
    stored = (CORE / "format" / "unprintable.inc").read_text(encoding="utf-8")
    ranges = [(int(a, 16), int(b, 16)) for a, b in re.findall(r"\{(0x\w+), (0x\w+)\}", stored)]
    theirs = {code for first, last in ranges for code in range(first, last + 1)}
    mine = {code for code in range(sys.maxunicode + 1) if not chr(code).isprintable()}
    assert all(unicodedata.category(chr(code)) == "Cn" for code in mine - theirs)
    version = re.match(r"// Unicode (\d+)\.(\d+)", stored)
    assert version is not None
    if unicodedata.unidata_version.split(".")[:2] <= list(version.groups()):
        assert theirs <= mine


def test_names() -> None:
    codes = list(CODES)
    assert texts("verdict.cpp", "kNames = {") == codes[: codes.index("left_out")]
    assert texts("format/dtypes.cpp", "kRows = {")[:-1] == list(manifest.DTYPES)
    assert texts("format/size_expr.cpp", "kRows = {") == list(size_expr.OPERATORS)
    assert set(texts("targets/this_machine.cpp", "kPrefixes[] = {")) == set(cpu_features._PREFIXES)
    assert set(texts("targets/this_machine.cpp", "kNames[] = {")) == cpu_features._NAMES
    trusts = (CORE / "targets" / "trust.h").read_text(encoding="utf-8")
    assert tuple(re.findall(r' = "([\w-]+)";', trusts)) == TRUSTS


def test_backends() -> None:
    source = (CORE / "targets" / "backends.cpp").read_text(encoding="utf-8")
    pattern = r'\{"(\w+)",\s*([^}]*?\}?),\s*VersionRule::(\w+),\s*"([^"]*)"\}'
    found = [
        (name, tuple(re.findall(r'"(\w+)"', libraries)) or backends.RUNTIMES, rule, install)
        for name, libraries, rule, install in re.findall(pattern, source)
    ]
    assert found == [
        (row.name, row.libraries, row.version_rule, row.install)
        for row in backends.BUILT_IN.values()
    ]
    assert tuple(texts("targets/backends.cpp", "found = {")) == backends.RUNTIMES


def test_names_in_archives() -> None:
    headers = [(CORE / "format" / name).read_text() for name in ("archive.h", "engine_calls.h")]
    found = dict(re.findall(r'constexpr const char\* k(\w+) = "([^"]+)";', "".join(headers)))
    assert found == {
        "ModelRecord": archive.MODEL,
        "ConstantsFolder": archive.CONSTANTS,
        "WeightsFolder": archive.WEIGHTS,
        "ConstantsConfig": archive.CONSTANTS_CONFIG,
        "WeightsConfig": archive.WEIGHTS_CONFIG,
        "Operator": archive.OPERATOR,
    }


def test_limits() -> None:
    assert constants("format/size_expr.h") == {
        "kMaxSize": size_expr.MAX_SIZE,
        "kMaxSizeDepth": size_expr.MAX_DEPTH,
        "kMaxSizeTerms": size_expr.MAX_TERMS,
        "kMaxExponent": size_expr.MAX_EXPONENT,
    }
    assert constants("format/fields.h") == {
        "kMaxItems": json_fields.MAX_ITEMS,
        "kMaxTextChars": json_fields.MAX_TEXT_CHARS,
        "kMaxFieldDepth": json_fields.MAX_DEPTH,
    }
    assert constants("format/dimensions.h") == {"kMaxRank": dimensions.MAX_RANK}
    assert constants("format/manifest.h") == {
        "kFormat": manifest.FORMAT,
        "kOldestFormat": manifest.OLDEST_FORMAT,
        "kMaxManifestChars": manifest.MAX_MANIFEST_CHARS,
    }
