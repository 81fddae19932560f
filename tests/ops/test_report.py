"""docs/operators.md is current: the list, what the table says, and a sample of the builds."""

from __future__ import annotations

import json

import pytest

from ops.core import NO_TENSORS, core_operators
from ops.judge import judge
from ops.report import PAGE, RESULTS, page, rows_to_build
from portrt.compiler.backends import registry

_SAMPLE = ("aten.relu.default", "aten.mm.default", "aten.cat.default", "aten.mean.dim")


def test_page_is_what_the_table_and_the_builds_say() -> None:
    """When this fails: `make operators`, or `python -m ops.report` in tests/ alone."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_page_names_every_core_operator() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert [op for op in core_operators() if f"`{op}`" not in text] == []


def test_share_of_core_operators_in_an_engine() -> None:
    """Of those that return tensors and neither draw random numbers nor change storage."""
    stays = {"aten.rand.default", "aten.randn.default", "aten.randperm.default"}
    stays |= {"aten.resize_.default", *NO_TENSORS}
    counted = [op for op in core_operators() if op not in stays]
    inside = [op for op in counted if rows_to_build(op)]

    assert len(inside) / len(counted) >= 0.97


@pytest.mark.parametrize("op", _SAMPLE)
def test_a_sample_of_the_builds_is_still_so(op: str) -> None:
    verdict = registry.builder("tensorrt_rtx").can_build()
    if not verdict:
        pytest.skip(f"tensorrt_rtx cannot build: {verdict}")
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"][op]
    for case, outcome in judge(rows_to_build(op), "tensorrt_rtx").items():
        assert outcome.engine == (not stored[case.variant]), outcome.reason
