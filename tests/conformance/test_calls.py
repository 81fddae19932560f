"""The cases of `conformance/calls.json`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stored_cases import cases_of, names_of

from portrt.errors import InputError
from portrt.format.manifest import compose, decode
from portrt.runtime.input_check import check_inputs, output_shapes

CASES = cases_of("calls")


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_call(case: dict[str, Any]) -> None:
    text = compose(name="block_0", inputs=case["inputs"], outputs=case["outputs"])
    signature = decode(text).signature
    inputs = [
        torch.empty((), dtype=getattr(torch, dtype), device="meta").expand(shape)
        for shape, dtype in zip(case["shapes"], case["dtypes"], strict=True)
    ]
    if "error" in case:
        with pytest.raises(InputError):
            check_inputs(signature, inputs)
            output_shapes(signature, inputs)
        return
    check_inputs(signature, inputs)
    found = output_shapes(signature, inputs, unknown=lambda _: None)
    assert [list(shape) for shape in found] == case["output_shapes"]
