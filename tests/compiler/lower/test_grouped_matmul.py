"""A mixture of experts' product, against one product for each group."""

from __future__ import annotations

import pytest
import torch
from harness import assert_same

import portrt
from portrt.compiler.lower.grouped_matmul import grouped_matmul


def by_hand(rows: torch.Tensor, matrices: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    result = torch.zeros(rows.shape[0], matrices.shape[2], dtype=rows.dtype)
    start = 0
    for group, end in enumerate(ends.tolist()):
        result[start:end] = rows[start:end] @ matrices[group]
        start = end
    return result


@pytest.mark.parametrize(
    ("count", "ends"),
    [
        (1, [0, 1, 1]),
        (5, [5, 5, 5]),
        (64, [32, 64, 64]),  # tiles that are full
        (100, [0, 33, 97, 100]),
        (100, [1, 2, 3, 4, 5, 100]),
        (40, [3, 20]),  # rows that belong to no group
        (300, list(range(0, 301, 10))[1:]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_one_product_for_each_group(count: int, ends: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(count)
    rows = torch.randn(count, 6, dtype=dtype)
    matrices = torch.randn(len(ends), 6, 4, dtype=dtype)
    found = grouped_matmul(rows, matrices, torch.tensor(ends, dtype=torch.int32))

    torch.testing.assert_close(found, by_hand(rows, matrices, torch.tensor(ends)))


class Grouped(torch.nn.Module):
    """bfloat16: the one dtype in which torch traces its operator."""

    def __init__(self) -> None:
        super().__init__()
        self.matrices = torch.nn.Parameter(torch.randn(3, 16, 8).bfloat16())

    def forward(self, rows: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return torch._grouped_mm(rows, self.matrices, offs=ends).relu()


def test_torchs_operator_is_in_the_engine() -> None:
    torch.manual_seed(0)
    model = Grouped().eval()
    rows, ends = torch.randn(40, 16).bfloat16(), torch.tensor([7, 7, 40], dtype=torch.int32)
    count = torch.export.Dim("count", min=1, max=200)
    program = portrt.compile(
        model,
        inputs=(rows, ends),
        dynamic_shapes=({0: count}, None),
        engines="onnxruntime",
        require_full_compilation=True,
        output_format="exported_program",
    ).module()

    for size, cuts in ((40, [7, 7, 40]), (90, [0, 50, 90]), (3, [1, 2, 3])):
        rows, ends = torch.randn(size, 16).bfloat16(), torch.tensor(cuts, dtype=torch.int32)
        wanted = by_hand(rows, model.matrices.detach(), ends).relu()
        assert_same(program(rows, ends), wanted, rtol=2e-2, atol=2e-2)
