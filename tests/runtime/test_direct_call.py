"""Calls that go to the engine without the graph around it: same numbers, same refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import portrt
from portrt.errors import InputError, NoUsableEngineError
from portrt.runtime.block import LoadedBlock
from portrt.runtime.calls import engine_calls
from portrt.runtime.module import PROGRAM, module_of

BATCH = torch.export.Dim("batch", min=1, max=16)


class Two(torch.nn.Module):
    """Two inputs, of which it names the second first, and nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        h = torch.relu(self.linear(y) * 2) - x
        return {"sum": h + 1, "pair": (h * 2, [h - 1])}


def compiled(model: torch.nn.Module, inputs: list[torch.Tensor], **options: Any) -> Any:
    return portrt.compile(model, inputs=inputs, engines="onnxruntime", min_block_size=1, **options)


@pytest.fixture(scope="module")
def two() -> Any:
    shapes = ({0: BATCH}, {0: BATCH})
    return compiled(Two().eval(), [torch.randn(2, 8), torch.randn(2, 8)], dynamic_shapes=shapes)


@pytest.fixture
def through_graph(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each call that goes through the operator."""
    calls: list[int] = []
    run = LoadedBlock.run

    def counted(self: LoadedBlock, inputs: Any) -> Any:
        calls.append(1)
        return run(self, inputs)

    monkeypatch.setattr(LoadedBlock, "run", counted)
    return calls


def equal(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_known_sizes_go_to_the_engine_and_give_eagers_numbers(
    two: Any, through_graph: list[int]
) -> None:
    model = Two().eval()
    for batch in (3, 5, 3, 5, 3):
        x, y = torch.randn(batch, 8), torch.randn(batch, 8)
        with torch.no_grad():
            equal(two(x, y), model(x, y))
    assert len(through_graph) == 2  # one for each size


def test_a_view_with_its_signs_turned_is_read_as_one() -> None:
    """The imaginary part of a conjugated scalar: contiguous, and its memory has the other sign."""
    model = torch.nn.Softplus()
    program = compiled(model, [torch.tensor(0.5)])
    x = torch.tensor(1.0 + 2.0j).conj().imag
    assert x.is_neg()
    assert x.is_contiguous()

    for given in (torch.tensor(0.5), x):
        equal(program(given), model(given))


@pytest.mark.parametrize(
    "function",
    [lambda x: x.exp() + 1, lambda x: (x.exp(), x + 1), lambda x: [x + 1]],
    ids=["tensor", "tuple", "list"],
)
def test_outputs_have_their_structure(
    function: Callable[[torch.Tensor], Any], through_graph: list[int]
) -> None:
    class Function(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return function(x)

    x = torch.randn(3, 4)
    module = compiled(Function(), [x])
    for _ in range(3):
        equal(module(x), function(x))
        assert type(module(x)) is type(function(x))
    assert len(through_graph) == 1


def test_wrong_inputs_are_refused_after_right_ones(two: Any) -> None:
    good = torch.randn(4, 8)
    two(good, good)
    with pytest.raises(InputError, match="shape"):
        two(good, torch.randn(5, 8))
    with pytest.raises(InputError, match="float64"):
        two(good, good.double())
    with pytest.raises(InputError, match="positional"):
        two(good)
    with pytest.raises(InputError, match="shape"):
        two(torch.randn(17, 8), torch.randn(17, 8))
    two(good, good)


def test_a_hook_is_called(two: Any) -> None:
    x = torch.randn(6, 8)
    two(x, x)
    seen: list[int] = []
    for register in (two.register_forward_hook, two.register_forward_pre_hook):
        handle = register(lambda *_: seen.append(1))
        two(x, x)
        handle.remove()
    assert len(seen) == 2


def test_modes_and_transforms_see_the_operator(two: Any) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x = torch.randn(7, 8)
    two(x, x)
    with Watch():
        two(x, x)
    assert "portrt.execute_engine.default" in seen


def test_fake_tensors_go_through_the_graph(two: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    x = torch.randn(7, 8)
    two(x, x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(x)
        assert two(fake, fake)["sum"].shape == (7, 8)


def test_torch_compile_and_export_trace_the_graph(two: Any) -> None:
    x, y = torch.randn(3, 8), torch.randn(3, 8)
    with torch.no_grad():
        wanted = Two().eval()(x, y)
        equal(torch.compile(two)(x, y), wanted)
        again = torch.export.export(two, (x, y))
    assert any("execute_engine" in str(node.target) for node in again.graph.nodes)
    equal(again.module()(x, y), wanted)


def test_a_policy_holds_for_known_sizes(two: Any) -> None:
    x = torch.randn(9, 8)
    two(x, x)
    with portrt.runtime.policy(engines=(), fallback="error"), pytest.raises(NoUsableEngineError):
        two(x, x)
    two(x, x)


def test_outputs_share_nothing_with_inputs_and_other_calls(two: Any) -> None:
    x = torch.randn(3, 8)
    first = two(x, x)["sum"].clone(), two(x, x)["sum"]
    two(x + 1, x)
    equal(first[1], first[0])


def test_inputs_that_need_gradients_give_outputs_that_do_not(two: Any) -> None:
    x = torch.randn(3, 8)
    two(x, x)
    assert not two(x.requires_grad_(), x)["sum"].requires_grad


def test_copies_run(two: Any) -> None:
    x = torch.randn(3, 8)
    equal(copy.deepcopy(two)(x, x), two(x, x))


def test_a_program_that_does_more_goes_through_the_graph(through_graph: list[int]) -> None:
    class Part(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sinh(x.exp() + 1)

    x = torch.randn(3, 4)
    module = compiled(Part(), [x], torch_executed_ops=["aten.sinh"])
    for _ in range(3):
        equal(module(x), torch.sinh(x.exp() + 1))
    assert len(through_graph) == 3


def test_a_loaded_file_as_a_module(two: Any, tmp_path: Any, through_graph: list[int]) -> None:
    portrt.save(two, tmp_path / "two.pt2")
    module = portrt.load(tmp_path / "two.pt2", output_format="module")
    x = torch.randn(3, 8)
    with torch.no_grad():
        for _ in range(3):
            equal(module(x, x), Two().eval()(x, x))
        assert not through_graph
        assert module.graph  # has torch read the program
        for _ in range(3):
            equal(module(x, x), Two().eval()(x, x))
    assert len(through_graph) == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_replaced_blob_is_noticed(two: Any, place: int, through_graph: list[int]) -> None:
    module = module_of(two.meta[PROGRAM])
    x = torch.randn(3, 8)
    with torch.no_grad():
        wanted = Two().eval()(x, x)
        for _ in range(3):
            equal(module(x, x), wanted)
    assert len(through_graph) == 1
    (node,) = engine_calls(module)
    name = str(node.args[1][place].target)
    if place == 0:
        image = getattr(module, name).clone()
        header = 8 + int.from_bytes(bytes(image[:8].tolist()), "little")
        image[header:] = (image[header:].view(torch.float32) * 2).view(torch.uint8)
        setattr(module, name, image)
        with torch.no_grad():
            doubled = Two().eval()
            doubled.linear.weight.mul_(2)
            doubled.linear.bias.mul_(2)
            wanted = doubled(x, x)
    else:
        setattr(module, name, getattr(module, name).clone())
    for _ in range(3):
        equal(module(x, x), wanted)
    assert len(through_graph) == 2


def test_a_deleted_blob_is_noticed(two: Any) -> None:
    module = module_of(two.meta[PROGRAM])
    x = torch.randn(3, 8)
    module(x, x)
    (node,) = engine_calls(module)
    delattr(module, str(node.args[1][0].target))
    with pytest.raises(AttributeError):
        module(x, x)
