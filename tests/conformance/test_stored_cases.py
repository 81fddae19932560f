"""The stored cases are those that are made here, and reach every code of a machine."""

from __future__ import annotations

import pytest
from stored_cases import FILES, FOLDER, cases_of, made

from portrt.verdict import CODES

# Of what opens, builds or compiles: no case can have them before that.
LATER = {"open_failed", "check_failed", "no_builder", "build_failed"}


@pytest.mark.parametrize("name", FILES)
def test_stored_cases_are_those_that_are_made(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="ascii") == made(name)


def test_the_folder_has_these_files_alone() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(FILES)
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.json`" in page for name in FILES)


def test_every_code_of_a_machine_has_a_case() -> None:
    of_machines = list(CODES)[: list(CODES).index("left_out")]
    found = {case["code"] for case in cases_of("requirements")}
    for case in cases_of("policies"):
        found |= {*case.get("codes", ()), case.get("choice", {}).get("code", "ok")}
    assert set(of_machines) - LATER == found
