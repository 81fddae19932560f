"""What OpenVINO's kernels do otherwise than PyTorch: rewritten, or left to PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops.test_special_inputs import CASES, _ordinary
from torch import Tensor, nn
from torch.export import Dim

import portrt
from portrt.format.manifest import decode
from portrt.runtime.calls import manifests_of
from portrt.runtime.select import FallbackWarning

pytest.importorskip("openvino", reason="openvino is not installed")

F = torch.nn.functional
inf, nan = float("inf"), float("nan")
_SPECIAL = torch.tensor([[nan, 1, -inf, 0.5], [-inf] * 4, [inf, -0.0, 2, -3], [1, nan, nan, 2]])

Case = tuple[Callable[..., Any], list[Tensor]]
# In engines, with eager's numbers at these inputs.
INSIDE: dict[str, Case] = {
    "relu": (F.relu, [_SPECIAL]),
    "relu half": (F.relu, [_SPECIAL.half()]),
    "relu of a scalar": (F.relu, [torch.tensor(nan)]),
    "relu6": (F.relu6, [_SPECIAL]),
    "exp": (torch.exp, [_SPECIAL]),
    "softmax": (lambda x: x.softmax(-1), [_SPECIAL]),
    "softmax of columns": (lambda x: x.softmax(0), [_SPECIAL]),
    "log_softmax": (lambda x: x.log_softmax(1), [_SPECIAL]),
    "maximum": (torch.maximum, [_SPECIAL, _SPECIAL.flip(-1)]),
    "minimum": (torch.minimum, [_SPECIAL, _SPECIAL.flip(0)]),
    "clamp": (lambda x: x.clamp(-1, 1), [_SPECIAL]),
    "clamp min": (lambda x: x.clamp(min=0.25), [_SPECIAL]),
    "greater": (torch.gt, [_SPECIAL, _SPECIAL.flip(-1)]),
    "at least": (torch.ge, [_SPECIAL, _SPECIAL.flip(-1)]),
    "less": (torch.lt, [_SPECIAL, _SPECIAL.flip(-1)]),
    "to bool": (lambda x: x.bool(), [_SPECIAL]),
    "not": (torch.logical_not, [_SPECIAL]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2, 1), [_SPECIAL[None, None]]),
    "bfloat16": (lambda x: F.gelu(x) * 2, [_SPECIAL.bfloat16()]),
    "bytes": (lambda x: x.float() / 255, [torch.tensor([0, 200, 255], dtype=torch.uint8)]),
    "clamp max": (lambda x: x.clamp(max=torch.tensor(1.5)), [_SPECIAL]),
    "division": (torch.div, [_SPECIAL, _SPECIAL.flip(-1)]),
    "flags": (lambda x, y: x & ~y, [torch.tensor([True, False]), torch.tensor([False, False])]),
    "positions": (lambda x: torch.cumsum(x, -1) * x + 1, [torch.tensor([[True, False, True]])]),
    "small integers": (lambda x: x // 3 + x % 5 - 7, [torch.tensor([-9, 8, 1 << 20])]),
    "equal": (torch.eq, [torch.tensor([1 << 20, 5]), torch.tensor([(1 << 20) - 1, 5])]),
    "row": (lambda x, i: x[i], [torch.arange(12.0).reshape(4, 3), torch.tensor([[0, -1], [3, 1]])]),
    "embedding": (lambda i, w: F.embedding(i, w), [torch.tensor([[2, 0]]), _SPECIAL]),
    "average": (lambda x: F.avg_pool2d(x, 3, 2, 1), [torch.rand(1, 2, 6, 6)]),
}
# Left to PyTorch: the name of the operator, and part of the reason.
OUTSIDE: dict[str, tuple[Case, str]] = {
    "amax": ((lambda x: x.amax(-1), [_SPECIAL]), "NaN"),
    "argmax": ((lambda x: x.argmax(-1), [_SPECIAL]), "NaN"),
    "sort": ((lambda x: torch.sort(x, -1)[0], [_SPECIAL]), "NaN"),
    "remainder": ((torch.remainder, [_SPECIAL, _SPECIAL.flip(-1)]), "quotients"),
    "floor of a quotient": (
        (lambda x: torch.div(x, 0.7, rounding_mode="floor"), [_SPECIAL]),
        "quotients",
    ),
    "float64": ((lambda x: x + 1, [_SPECIAL.double()]), "float64"),
    "product": ((torch.mul, [torch.tensor([1 << 13]), torch.tensor([1 << 13])]), "24 bits"),
    "from floats": ((lambda x: x.long(), [torch.tensor([1e9])]), "24 bits"),
    "bytes": ((torch.add, [torch.tensor([200], dtype=torch.uint8)] * 2), "24 bits"),
    "gather": ((lambda x, i: x.gather(1, i), [_SPECIAL, torch.tensor([[1], [0]])]), "indices"),
    "two indices": ((lambda x, i: x[i, i], [_SPECIAL, torch.tensor([1, 0])]), "indices"),
    "average": (
        (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), [torch.rand(1, 2, 6, 6)]),
        "ceil_mode",
    ),
    "antialiased": (
        (
            lambda x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True),
            [torch.rand(1, 2, 6, 6)],
        ),
        "resizes",
    ),
    "resized": ((lambda x: F.interpolate(x, scale_factor=1.3), [torch.rand(1, 2, 6)]), "resizes"),
    "nothing": ((lambda x: torch.cat([x, x.new_zeros(0, 4)]) + 1, [_SPECIAL]), "elements"),
    "masked": ((lambda x: x[x > 0], [_SPECIAL]), ""),
}


class _All(nn.Module):
    def __init__(self, functions: list[Callable[..., Any]]) -> None:
        super().__init__()
        self._functions = functions

    def forward(self, tensors: list[list[Tensor]]) -> list[Any]:
        return [f(*own) for f, own in zip(self._functions, tensors, strict=True)]


def _compiled(cases: list[Case], **options: Any) -> Any:
    torch.manual_seed(0)
    examples = [[_ordinary(x) for x in own] for _, own in cases]
    return portrt.compile(
        _All([function for function, _ in cases]).eval(),
        inputs=[examples],
        engines="openvino",
        min_block_size=1,
        cache_dir="off",
        **options,
    )


@pytest.fixture(scope="module")
def inside() -> list[Any]:
    cases = list(INSIDE.values())
    program = _compiled(cases, check="off", require_full_compilation=True)
    with portrt.runtime.policy(fallback="error"):
        return list(program([own for _, own in cases]))


@pytest.mark.parametrize("name", INSIDE)
def test_engines_give_eagers_numbers(name: str, inside: list[Any]) -> None:
    function, given = INSIDE[name]
    found = inside[list(INSIDE).index(name)]

    torch.testing.assert_close(found, function(*given), equal_nan=True)


def test_the_special_inputs_of_the_table_give_eagers_numbers() -> None:
    wanted = ("masked", "norm", "hypot", "cosine", "var", "nanmean", "dilated", "logaddexp")
    names = [name for name in CASES if name.startswith(wanted) and "float64" not in name]
    cases = [CASES[name] for name in names]
    program = _compiled(cases, check="off")
    found = program([own for _, own in cases])

    for name, (function, given), got in zip(names, cases, found, strict=True):
        half = any(x.dtype in (torch.float16, torch.bfloat16) for x in given)
        bounds = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(got, function(*given), equal_nan=True, msg=name, **bounds)


def test_what_differs_stays_in_pytorch_with_the_reason() -> None:
    reports: list[Any] = []
    cases = [case for case, _ in OUTSIDE.values()]
    program = _compiled(cases, report=reports.append)
    found = program([own for _, own in cases])

    for (name, (_, reason)), got, (function, given) in zip(
        OUTSIDE.items(), found, cases, strict=True
    ):
        torch.testing.assert_close(got, function(*given), equal_nan=True, msg=name)
        assert reason in str(reports[0])


class _Ids(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return F.relu(self.words(ids)).sum(1) + (ids > 3).sum(1, keepdim=True)


def test_calls_that_openvino_computes_otherwise_run_in_pytorch() -> None:
    model = _Ids().eval()
    example = torch.tensor([[1, 2, 3]])
    sizes = ({0: Dim("batch", min=0, max=64), 1: Dim("length", min=0, max=64)},)
    program = portrt.compile(
        model,
        inputs=[example],
        dynamic_shapes=sizes,
        engines="openvino",
        min_block_size=1,
        require_full_compilation=True,
        output_format="exported_program",
    )
    (engine,) = decode(manifests_of(program)[0]).engines
    called = program.module()
    with torch.no_grad():
        for ids in (example, torch.tensor([[9, 0]] * 3), torch.tensor([[5]])):
            with portrt.runtime.policy(fallback="error"):
                torch.testing.assert_close(called(ids), model(ids))
        for shape in ((0, 3), (2, 0)):
            with pytest.warns(FallbackWarning) if shape[0] == 0 else _nothing():
                found = called(torch.zeros(shape, dtype=torch.int64))
            torch.testing.assert_close(found, model(torch.zeros(shape, dtype=torch.int64)))
        for wrong in ([[10]], [[-1]], [[1 << 40]]):
            with pytest.raises(portrt.errors.PortrtError, match="index out of range"):
                called(torch.tensor(wrong))

    assert engine.requires["openvino"] == "2026.4"
    assert len(engine.requires["nonzero_sizes"]) == 2


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_large_integer_weights_are_refused() -> None:
    class Offsets(nn.Module):
        def __init__(self, value: int) -> None:
            super().__init__()
            self.register_buffer("offsets", torch.full((40,), value))

        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > 0, self.offsets, 0).float() * x

    options: dict[str, Any] = {"engines": "openvino", "min_block_size": 1}
    given = torch.ones(40)
    program = portrt.compile(Offsets(5).eval(), inputs=[given], **options)
    torch.testing.assert_close(program(given), Offsets(5)(given))
    with pytest.raises(portrt.errors.BuildError, match="integers"):
        portrt.compile(Offsets(1 << 40).eval(), inputs=[given], **options)


def test_precision_and_fast_numerics_are_options_of_the_engine() -> None:
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    x = torch.randn(4, 32)
    program = portrt.compile(
        model,
        inputs=[x],
        engines=[
            {"backend": "openvino", "precision": "bf16"},
            "openvino",
            {"backend": "openvino", "numerics": "fast"},
        ],
        min_block_size=1,
        output_format="exported_program",
    )
    low, plain, fast = decode(manifests_of(program)[0]).engines

    assert low.build["precision"] == "bf16"
    assert "inference_precision" not in plain.build
    assert (plain.build.get("numerics"), fast.build["numerics"]) == (None, "fast")
    torch.testing.assert_close(program.module()(x), model(x), rtol=2e-2, atol=2e-2)
