"""The stored cases. `python tests/conformance/stored_cases.py` writes them again."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "conformance"
# File -> the module here that makes its cases.
FILES = {
    "manifests": "make_manifests",
    "size_expressions": "make_size_expressions",
    "requirements": "make_requirements",
    "policies": "make_policies",
    "weights": "make_weights",
    "calls": "make_calls",
}


def made(name: str) -> str:
    """The text of a file: a list, one case a line."""
    cases = import_module(FILES[name]).cases()
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names), [item for item in names if names.count(item) > 1]
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    return f"[\n{lines}\n]\n"


def cases_of(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="ascii"))
    return found


def names_of(cases: list[dict[str, Any]]) -> list[str]:
    return [case["name"] for case in cases]


if __name__ == "__main__":
    for chosen in sys.argv[1:] or FILES:
        (FOLDER / f"{chosen}.json").write_text(made(chosen), encoding="ascii", newline="\n")
