"""The cases of `conformance/requirements.json`."""

from __future__ import annotations

from typing import Any

import pytest
from stored_cases import cases_of, names_of

from portrt.files import Target
from portrt.targets.requirements import check_requirements
from portrt.targets.tensorrt_rules import runtime_for

CASES = cases_of("requirements")


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_requirement(case: dict[str, Any]) -> None:
    facts = Target(**case["machine"]).facts()
    verdict = check_requirements(case["backend"], case["requires"], facts, case["device"])
    assert verdict.code == case["code"], str(verdict)
    if "library" in case:
        assert runtime_for(case["requires"], facts) == case["library"]
