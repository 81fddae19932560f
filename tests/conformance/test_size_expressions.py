"""The cases of `conformance/size_expressions.json`."""

from __future__ import annotations

from typing import Any

import pytest
from stored_cases import cases_of, names_of

from portrt.errors import PackageError
from portrt.format import size_expr

CASES = cases_of("size_expressions")


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_size_expression(case: dict[str, Any]) -> None:
    tree, shapes = case["tree"], case["shapes"]
    ranks = [len(shape) for shape in shapes]
    if case.get("error") == "malformed":
        with pytest.raises(PackageError) as caught:
            size_expr.check(tree, ranks, "it")
        assert caught.value.field == case["field"]
        return
    size_expr.check(tree, ranks, "it")
    if case.get("error") == "arithmetic":
        with pytest.raises(ArithmeticError):
            size_expr.evaluate(tree, lambda index, axis: shapes[index][axis])
        return
    value = size_expr.evaluate(tree, lambda index, axis: shapes[index][axis])
    assert type(value) is int
    assert value == case["value"]
