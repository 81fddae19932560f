"""Modules of files that are called before torch reads their program."""

from __future__ import annotations

import copy
import gc
import json
import os
import weakref
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import python
from torch import nn
from torch.export import Dim

import portrt
from portrt.errors import InputError, LoadError, NoUsableEngineError
from portrt.runtime.unread_module import UnreadModule

BATCH = Dim("batch", min=1, max=16)


class Two(nn.Module):
    """Two inputs, of which it takes the second first, and nested outputs, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        h = torch.relu(self.linear(y) * 2) - x
        top = h + 1
        return {"sum": top, "pair": (h * 2, [h - 1, top])}


def saved(model: nn.Module, inputs: list[Any], path: Path, **options: Any) -> Path:
    program = portrt.compile(
        model, inputs=inputs, engines="onnxruntime", min_block_size=1, **options
    )
    portrt.save(program, path)
    return path


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Two().eval()


@pytest.fixture(scope="module")
def path(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = [torch.randn(2, 8), torch.randn(2, 8)]
    shapes = ({0: BATCH}, {0: BATCH})
    return saved(
        model, inputs, tmp_path_factory.mktemp("unread") / "two.pt2", dynamic_shapes=shapes
    )


def load(path: Path, **options: Any) -> Any:
    return portrt.load(path, output_format="module", **options)


def is_unread(module: Any) -> bool:
    return type(module) is UnreadModule


def equal(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_calls_do_not_read_the_program(path: Path, model: nn.Module) -> None:
    module = load(path)
    for size in (1, 2, 16, 2):
        x, y = torch.randn(2, size, 8)
        equal(module(x, y), model(x, y))
        equal(module(x.T.contiguous().T, y), model(x, y))
    assert is_unread(module)
    assert isinstance(module, nn.Module)
    assert isinstance(module, torch.fx.GraphModule)
    assert not isinstance(module, torch.Tensor)
    assert is_unread(module)


def test_a_process_that_calls_imports_no_reader(path: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch, portrt\n"
        "before = set(sys.modules)\n"
        "torch.manual_seed(0)\n"
        "x, module = torch.ones(3, 8), portrt.load(sys.argv[1], output_format='module')\n"
        "torch.save(module(x, x), sys.argv[2])\n"
        "late = set(sys.modules) - before\n"
        "assert not {'sympy', 'torch._dynamo', 'torch._export.serde.serialize'} & late, late\n"
    )
    result = tmp_path / "made.pt"
    done = python(code, str(path), str(result))
    assert done.returncode == 0, done.stderr
    equal(torch.load(result), Two().eval()(torch.ones(3, 8), torch.ones(3, 8)))


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.state_dict(),
        lambda m: m.graph,
        repr,
        str,
        dir,
        copy.copy,
        copy.deepcopy,
        lambda m: m.meta,
        lambda m: m.register_forward_hook(lambda *_: None),
        lambda m: setattr(m, "note", 1),
        lambda m: m.to(torch.device("cpu")),
        lambda m: list(m.modules()),
        lambda m: portrt.runtime.report(m),
    ],
)
def test_other_uses_make_it_the_module_of_torch(path: Path, model: nn.Module, use: Any) -> None:
    module, other = load(path), portrt.load(path)
    x, y = torch.randn(2, 3, 8)
    before = module(x, y)
    use(module)
    assert isinstance(module, torch.fx.GraphModule)
    assert not is_unread(module)
    assert list(module.state_dict()) == list(other.module().state_dict())
    assert str(module.graph) == str(other.module().graph)
    torch.testing.assert_close(module(x, y), before, rtol=0, atol=0)
    equal(copy.deepcopy(module)(x, y), model(x, y))


def test_the_engine_is_opened_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from portrt.runtime import stored_block

    opened: list[str] = []
    real = stored_block.open_engine

    def counted(*args: Any, **kwargs: Any) -> Any:
        opened.append("")
        return real(*args, **kwargs)

    monkeypatch.setattr(stored_block, "open_engine", counted)
    module = load(path)
    x, y = torch.randn(2, 3, 8)
    module(x, y)
    assert module.graph
    module(x, y)
    assert len(opened) == 1


@pytest.mark.parametrize("early", [False, True])
def test_refusals_are_those_of_the_program(path: Path, early: bool) -> None:
    x = torch.randn(3, 8)
    bad: list[tuple[Any, ...]] = [
        (x, torch.randn(4, 8)),
        (torch.randn(17, 8), torch.randn(17, 8)),
        (torch.randn(0, 8), torch.randn(0, 8)),
        (x, x.double()),
        (x, x[0]),
        (x,),
        (x, x, x),
    ]
    read = portrt.load(path).module()
    wanted = load(path)
    assert wanted.graph
    for args in bad:
        module = load(path)
        if early:
            module(x, x)
        with pytest.raises(InputError) as found:
            module(*args)
        with pytest.raises(InputError) as own:
            wanted(*args)
        assert str(found.value) == str(own.value)
        with pytest.raises((RuntimeError, AssertionError, TypeError, ValueError, InputError)):
            read(*args)  # torch's own callable refuses it, too
    with pytest.raises(InputError, match="by keyword"):
        load(path)(x, z=x)
    torch.testing.assert_close(load(path)(y=x + 1, x=x), wanted(x, x + 1))


def test_policies_hold(path: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(2, 3, 8)
    with pytest.raises(NoUsableEngineError):
        load(path, engines="tensorrt", fallback="error")(x, y)
    module = load(path, engines="onnxruntime")
    equal(module(x, y), model(x, y))
    with (
        portrt.runtime.policy(engines="tensorrt", fallback="error"),
        pytest.raises(NoUsableEngineError),
    ):
        module(x, y)
    assert is_unread(module)
    (text,) = [node.args[2] for node in module.graph.nodes if len(node.args) == 3]
    assert json.loads(text)["policy"]["engines"] == ["onnxruntime"]
    equal(module(x, y), model(x, y))


def test_it_is_part_of_other_modules(path: Path, model: nn.Module) -> None:
    x, y = torch.randn(2, 3, 8)
    outer = nn.ModuleDict({"inner": load(path)})
    equal(outer["inner"](x, y), model(x, y))
    assert all(name.startswith("inner.") for name in outer.state_dict())
    equal(outer.to("cpu")["inner"](x, y), model(x, y))


class Around(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(x * 2, y)["sum"]
        return found


def test_it_is_exported_compiled_and_traced_as_part(path: Path, model: nn.Module) -> None:
    x, y = torch.randn(2, 3, 8)
    wanted = model(x * 2, y)["sum"]
    exported = torch.export.export(Around(load(path)), (x, y))
    equal(exported.module()(x, y), wanted)
    compiled = torch.compile(Around(load(path)), backend="eager")
    equal(compiled(x, y), wanted)
    from torch.func import functional_call

    outer = Around(load(path))
    equal(functional_call(outer, dict(outer.state_dict()), (x, y)), wanted)


def test_grad_inputs_and_views_are_as_in_the_program(path: Path, model: nn.Module) -> None:
    x, y = torch.randn(2, 3, 8)
    module = load(path)
    found = module(x.requires_grad_(), y)
    assert not found["sum"].requires_grad
    equal(found, torch.no_grad()(model)(x, y))
    negative = torch.view_as_complex(torch.randn(3, 8, 2)).conj().imag
    assert negative.is_neg()
    equal(module(negative, y), torch.no_grad()(model)(negative, y))


def test_saved_again_it_is_the_same_program(path: Path, model: nn.Module, tmp_path: Path) -> None:
    portrt.save(load(path), tmp_path / "again.pt2")
    x, y = torch.randn(2, 5, 8)
    equal(load(tmp_path / "again.pt2")(x, y), model(x, y))


def test_the_file_may_be_replaced_after_the_load(
    path: Path, model: nn.Module, tmp_path: Path
) -> None:
    own = tmp_path / "own.pt2"
    own.write_bytes(path.read_bytes())
    module, untouched = load(own), load(own)
    x, y = torch.randn(2, 3, 8)
    equal(module(x, y), model(x, y))
    other = saved(nn.Linear(8, 2).eval(), [torch.ones(1, 8)], tmp_path / "other.pt2")
    os.replace(other, own)
    assert module.graph
    assert untouched.graph
    equal(module(x, y), model(x, y))
    equal(untouched(x, y), model(x, y))


@pytest.mark.parametrize("_", range(5))
def test_threads_have_it_read_once(path: Path, model: nn.Module, _: int) -> None:
    x, y = torch.randn(2, 3, 8)
    wanted, module = model(x, y), load(path)
    with ThreadPoolExecutor(8) as pool:
        calls = [
            (pool.submit(module, x, y), pool.submit(getattr, module, "graph")) for _ in "8" * 8
        ]
    for made, _graph in calls:
        equal(made.result(), wanted)
    assert len({id(graph.result()) for _, graph in calls}) == 1


def test_it_is_freed_with_the_last_reference(path: Path) -> None:
    module = load(path)
    module(*torch.randn(2, 3, 8))
    block = weakref.ref(object.__getattribute__(module, "__dict__")["state"].block)
    gc.disable()
    try:
        del module
        assert block() is None
    finally:
        gc.enable()


def test_a_program_that_torch_cannot_read_is_a_load_error(path: Path, tmp_path: Path) -> None:
    """Where its JSON is in order, but names a dtype that torch does not have."""
    broken = tmp_path / "broken.pt2"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("models/model.json"):
                model = json.loads(content)
                values = model["graph_module"]["graph"]["tensor_values"]
                for name in ("x", "y"):
                    values[name]["dtype"] = 9999
                content = json.dumps(model).encode()
            new.writestr(zipfile.ZipInfo(info.filename), content)
    module = load(broken)
    with pytest.raises(LoadError, match="cannot read the program"):
        assert module.graph
    with pytest.raises(LoadError, match="cannot read the program"):
        portrt.load(broken)


class Guarded(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        torch._check(x.shape[0] != y.shape[0] + 3)
        return torch.cat([x, y]) * 2


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * self.count


@pytest.mark.parametrize(
    ("model", "inputs", "options"),
    [
        pytest.param(
            Guarded(),
            [torch.ones(2, 4), torch.ones(3, 4)],
            {"dynamic_shapes": ({0: Dim("a", max=9)}, {0: Dim("b", max=9)})},
            id="a condition on sizes",
        ),
        pytest.param(Twice(), [torch.ones(3)], {}, id="a buffer that is written"),
    ],
)
def test_other_programs_are_read_at_once(
    model: nn.Module, inputs: list[Any], options: dict[str, Any], tmp_path: Path
) -> None:
    module = load(saved(model.eval(), inputs, tmp_path / "other.pt2", **options))
    assert type(module) is not UnreadModule
    equal(module(*inputs), model(*inputs) if not isinstance(model, Twice) else inputs[0])
