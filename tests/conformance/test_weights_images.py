"""The cases of `conformance/weights.json`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stored_cases import cases_of, names_of

from portrt.errors import PackageError
from portrt.weights import WeightsImage

CASES = cases_of("weights")


def image_of(case: dict[str, Any]) -> torch.Tensor:
    header = case["header"].encode()
    length = case.get("length", len(header))
    image = length.to_bytes(8, "little") + header + b"d" * case["data"]
    image = image[: case.get("total", len(image))]
    return torch.tensor(list(image), dtype=torch.uint8)


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_weights(case: dict[str, Any]) -> None:
    if not case["valid"]:
        with pytest.raises(PackageError):
            WeightsImage(image_of(case))
        return
    image = WeightsImage(image_of(case))
    found = {
        name: {
            "dtype": str(dtype).removeprefix("torch."),
            "shape": list(shape),
            "offset": offset,
            "size": size,
        }
        for name in image.names()
        for dtype, shape, offset, size in [image.entry(name)]
    }
    assert found == case["entries"]
