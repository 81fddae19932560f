"""`torch.compile(backend="portrt")`: results are eager's, and graphs are in engines."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from models import lambda_module
from torch import nn
from torch._dynamo.testing import CompileCounter

import portrt
from portrt.compiler.torch_compile import backend, portrt_backend
from portrt.errors import BackendUnavailableError, CaptureError, InputError, SettingsError

Graphs = list[Any]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    backend._logged_once.clear()
    yield
    torch._dynamo.reset()


def compiled(model: Any, graphs: Graphs | None = None, **given: Any) -> Callable[..., Any]:
    """Compile with the backend; a report of each graph that is in engines goes to `graphs`."""
    options = {"engines": "onnxruntime", "min_block_size": 1, "check": "error"}
    options |= {} if graphs is None else {"report": graphs.append}
    options |= given.pop("options", {})
    return torch.compile(model, backend=portrt_backend, options=options, **given)


def randn(*shape: int) -> torch.Tensor:
    """Return the same numbers at each call with a shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_equal(found: Any, wanted: Any, **more: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, **more)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(4))

    def forward(self, x: torch.Tensor, *, scale: float = 2.0, flag: bool = True) -> Any:
        y = self.norm(self.fc(x)).relu() * scale
        self.calls.add_(1)
        return {"flat": y.view(x.shape[0] * 2, -1), "rest": (x.shape[0], [x[1:], y.sum(0)], flag)}


def both(model: nn.Module, graphs: Graphs, **given: Any) -> tuple[nn.Module, Callable[..., Any]]:
    """Return a model, and its copy compiled."""
    return model, compiled(copy.deepcopy(model), graphs, **given)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_keywords_nested_outputs_buffers_and_new_sizes(mode: Callable[[], Any]) -> None:
    graphs: Graphs = []
    model, call = both(Net().eval(), graphs, fullgraph=True)
    with mode():
        for rows in (3, 5, 7, 9):
            assert_equal(call(randn(rows, 4)), model(randn(rows, 4)))
        assert len(graphs) == 2  # one of fixed sizes, and one with a range
        assert_equal(call(randn(3, 4), flag=False), model(randn(3, 4), flag=False))
    assert model.calls[0] == 5
    assert all(graph.nodes_in_engines > 0 for graph in graphs)


def test_weights_are_shared_and_changes_are_seen() -> None:
    graphs: Graphs = []
    source = Net().eval()
    call = compiled(source, graphs)
    with torch.no_grad():
        call(randn(3, 4))
        source.fc.weight.mul_(3)
        source.fc.bias.data.add_(1)  # which torch's version counter does not see
        source.norm.running_mean.fill_(0.5)
        assert_equal(call(randn(3, 4)), source(randn(3, 4)))
        source.load_state_dict(
            {name: torch.rand(t.shape) for name, t in source.state_dict().items()}
        )
        assert_equal(call(randn(3, 4)), source(randn(3, 4)))
        source.fc.weight = nn.Parameter(torch.rand(4, 4))
        assert_equal(call(randn(3, 4)), source(randn(3, 4)))
    assert len(graphs) == 1


@pytest.mark.parametrize("immutable", [False, True])
def test_one_function_with_weights_of_several_layers(immutable: bool) -> None:
    torch.manual_seed(1)
    layers = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval() for _ in range(3)]
    call = compiled(lambda layer, x: layer(x) * 2, options={"immutable_weights": immutable})
    with torch.no_grad():
        for layer in (*layers, *layers):
            assert_equal(call(layer, randn(3, 4)), layer(randn(3, 4)) * 2)


def test_weights_that_cannot_be_compiled_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    layers = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval() for _ in range(4)]
    call = compiled(lambda layer, x: layer(x) * 2, options={"immutable_weights": True})
    fails = [False, True, False, False]
    original = backend.compile_program

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        if fails.pop(0):
            raise CaptureError("it failed", "another model", "nothing")
        return original(*args, **kwargs)

    monkeypatch.setattr(backend, "compile_program", sometimes)
    with torch.no_grad():
        for layer in (*layers, *layers):
            assert_equal(call(layer, randn(3, 4)), layer(randn(3, 4)) * 2)
    assert fails == []


def test_few_sets_of_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were called last."""
    torch.manual_seed(1)
    layers = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval() for _ in range(3)]
    call = compiled(lambda layer, x: layer(x) * 2, options={"immutable_weights": True})
    built: list[int] = []
    original = backend.compile_program

    def counted(*args: Any, **kwargs: Any) -> Any:
        built[-1] += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(backend, "_MOST_VARIANTS", 2)
    monkeypatch.setattr(backend, "compile_program", counted)
    with torch.no_grad():
        for index in (0, 1, 0, 2, 0, 1):
            built.append(0)
            assert_equal(call(layers[index], randn(3, 4)), layers[index](randn(3, 4)) * 2)
    assert built == [1, 1, 0, 1, 0, 1]


def test_calls_that_the_program_refuses_are_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise InputError("it is another input", "inputs of the range", "give others")

    monkeypatch.setattr("portrt.compiler.torch_compile.call._Run.__call__", refuse)
    call = compiled(lambda x: x.relu() + 1)
    for _ in range(3):
        assert_equal(call(randn(3, 4)), randn(3, 4).relu() + 1)
    assert caplog.text.count("runs in PyTorch: it is another input") == 1


def writes(x: torch.Tensor, y: torch.Tensor) -> Any:
    x.add_(y.relu().tanh() * 2)
    z = x * 3
    return z, x, z[0], x.t(), z.view(-1)


def pure_write(x: torch.Tensor, y: torch.Tensor) -> Any:
    x[1:] = y[1:] * 2 + 1


@pytest.mark.parametrize("function", [writes, pure_write])
@pytest.mark.parametrize("twice", [False, True])
def test_inputs_that_are_written_to_and_outputs_that_share_memory(
    function: Callable[..., Any], twice: bool
) -> None:
    call = compiled(function)

    def results(run: Callable[..., Any], size: int) -> Any:
        x, y = randn(size, 3), randn(size, 3) + 1
        found = run(x, x if twice else y)
        if found is not None:
            found[3].mul_(2)  # a view of x
            found[4].add_(1)  # of the memory of z
        return found, x

    with torch.no_grad():
        for size in (3, 4, 6):
            assert_equal(results(call, size), results(function, size))


def test_a_call_with_overlapping_arguments_after_one_without() -> None:
    call = compiled(writes)

    def results(run: Callable[..., Any]) -> Any:
        base = randn(5, 3)
        return run(base[:3], base[1:4]), base

    with torch.no_grad():
        call(randn(3, 3), randn(3, 3))
        assert_equal(results(call), results(writes))


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.a(x).relu()
        if y.sum() > 0:
            y = y * 2
        flat = y.view(-1)
        torch._dynamo.graph_break()
        flat.add_(1)
        return self.b(y), flat


def test_graph_breaks() -> None:
    torch.manual_seed(0)
    graphs: Graphs = []
    model, call = both(Broken().eval(), graphs)
    with torch.no_grad():
        for rows in (3, 9, 5):
            assert_equal(call(randn(rows, 4)), model(randn(rows, 4)))
    assert len(graphs) >= 3


class Positions(nn.Module):
    """Its sizes are even, and at most 16."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = x + self.table.weight[: x.shape[1]]
        return found.reshape(x.shape[0], 2, -1, 8).relu()


def test_marked_and_inferred_sizes() -> None:
    """There are as many graphs as for a backend that compiles nothing."""
    graphs: Graphs = []
    model = Positions().eval()
    counter = CompileCounter()
    counts = []
    for call in (torch.compile(model, backend=counter), compiled(model, graphs)):
        torch._dynamo.reset()
        with torch.no_grad():
            for rows, length in ((2, 4), (2, 8), (3, 12), (5, 10)):
                x = randn(rows, length, 8)
                torch._dynamo.mark_dynamic(x, 0, min=2, max=64)
                torch._dynamo.maybe_mark_dynamic(x, 1)
                assert_equal(call(x), model(x))
        counts.append(len(graphs))
    assert counts == [0, counter.frame_count]


def test_dynamic_from_the_first_call() -> None:
    graphs: Graphs = []
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()).eval()
    call = compiled(model, graphs, dynamic=True)
    with torch.no_grad():
        for rows in (2, 5, 9):
            assert_equal(call(randn(rows, 4)), model(randn(rows, 4)))
    assert len(graphs) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x, k: (x.relu() + 1).repeat(k, 1) * k,
        lambda x, k: (x.relu() * (k + 0.5)).tanh(),
        lambda x, k: (x + k, x.shape[0] * k, None, k),
    ],
)
def test_numbers_that_vary(function: Callable[..., Any]) -> None:
    call = compiled(function)
    with torch.no_grad():
        for k in (1, 2, 3, 5):
            assert_equal(call(randn(3, 4), k), function(randn(3, 4), k))


def _out(x: torch.Tensor, y: torch.Tensor) -> Any:
    return torch.add(x, 1, out=y), y


NEIGHBOURS: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
    "sizes 0 and 1": (lambda x: (x.relu() + 1).sum(0), [(randn(n, 4),) for n in (0, 1, 5, 2, 0)]),
    "dtypes": (
        lambda a, b, c, d: (a.exp(), b * 2, c * 2 > 3, ~d),
        [(randn(3).double(), randn(3).bfloat16(), torch.arange(3), torch.tensor([True, False]))],
    ),
    "complex": (lambda x: (x * 2 + 1j).abs(), [(torch.randn(4, dtype=torch.complex64),)]),
    "strides": (lambda x: x.relu().sum(1), [(randn(4, 6).t(),), (randn(5, 7)[:, ::2],)]),
    "written in place": (
        lambda x: (nn.functional.relu(x, inplace=True), x, x.detach(), x.split(2, -1)),
        [(randn(4, 6),)],
    ),
    "out=": (_out, [(randn(4, 6), randn(6, 4).t().contiguous())]),
    "nan": (lambda x: (x.max(), x.relu()), [(torch.tensor([1.0, float("nan")]),)]),
    "vmap": (lambda x: torch.vmap(lambda row: row.relu() * 2)(x), [(randn(3, 4),)]),
    "a branch": (
        lambda x, p: torch.cond(p, lambda a: a.relu() + 1, lambda a: a.sin() - 1, (x,)),
        [(randn(3, 4), torch.tensor(True)), (randn(3, 4), torch.tensor(False))],
    ),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours(name: str) -> None:
    function, calls = NEIGHBOURS[name]
    call = compiled(function)
    with torch.no_grad():
        for arguments in calls:
            given, other = copy.deepcopy((arguments, arguments))
            found, wanted = call(*given), function(*other)
            assert_equal([found, given], [wanted, other], equal_nan=True)


def test_statistics_of_a_norm_in_training_mode() -> None:
    graphs: Graphs = []
    model, call = both(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train(), graphs)
    inner = call.get_submodule("_orig_mod") if isinstance(call, nn.Module) else nn.Module()
    with torch.no_grad():
        for rows in (3, 5, 7):
            assert_equal(call(randn(rows, 4)), model(randn(rows, 4)))
    assert_equal(inner.state_dict(), model.state_dict())


def test_autocast_inside_and_outside() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 8)

        def forward(self, x: torch.Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                y = self.a(x)
            with torch.autocast("cpu", enabled=False):
                z = x @ x.t()
            return y.float().relu() * 2, y, z

    model = Mixed().eval()
    call = compiled(model)
    with torch.no_grad():
        torch.testing.assert_close(call(randn(3, 4)), model(randn(3, 4)), rtol=1e-2, atol=1e-2)
        with torch.autocast("cpu", torch.bfloat16):
            found, wanted = call(randn(3, 4)), model(randn(3, 4))
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)


def test_gradients_run_in_pytorch_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh()).train()
    call = compiled(model)
    with caplog.at_level(logging.WARNING, "portrt"):
        for rows in (3, 4):
            call(randn(rows, 4)).sum().backward()
    found = model[0].weight.grad
    model[0].weight.grad = None
    for rows in (3, 4):
        model(randn(rows, 4)).sum().backward()
    assert_equal(found, model[0].weight.grad)
    assert sum("no_grad" in record.getMessage() for record in caplog.records) == 1


def test_a_decorated_forward_needs_no_gradients() -> None:
    class Decorated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 8)

        @torch.no_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x).relu().sum(-1)

    graphs: Graphs = []
    model = Decorated()
    assert_equal(compiled(model, graphs, fullgraph=True)(randn(3, 4)), model(randn(3, 4)))
    assert len(graphs) == 1


def test_what_no_engine_takes_runs_in_pytorch(caplog: pytest.LogCaptureFixture) -> None:
    model = lambda_module(lambda x: torch.linalg.eigvalsh(x @ x.t()))()
    call = compiled(model, options={"min_block_size": 5})
    with torch.no_grad(), caplog.at_level(logging.WARNING, "portrt"):
        assert_equal(call(randn(3, 3)), model(randn(3, 3)))
    assert any("runs in PyTorch" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"enginez": 1}, SettingsError, "did you mean 'engines'"),
        ({"dryrun": True}, SettingsError, "dryrun"),
        ({"min_block_size": "x"}, SettingsError, "min_block_size"),
        ({"engines": "nothing"}, BackendUnavailableError, "nothing"),
    ],
)
def test_wrong_options_are_errors_of_portrt(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with torch.no_grad(), pytest.raises(error, match=text):
        compiled(nn.ReLU(), options=options)(randn(3))


def test_engines_come_from_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Net().eval()
    with torch.no_grad(), caplog.at_level(logging.INFO, "portrt"):
        for x in (randn(3, 4), randn(3, 4) + 1):
            torch._dynamo.reset()
            caplog.clear()
            assert_equal(compiled(model, options={"cache_dir": tmp_path})(x), model(x))
    assert any("engine of block_0 from the cache" in r.getMessage() for r in caplog.records)


def test_a_program_of_mutable_weights(tmp_path: Path) -> None:
    """`portrt.compile(..., immutable_weights=False)`: its parameters may be changed, and saved."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()).eval()
    program = portrt.compile(
        copy.deepcopy(model), inputs=[randn(3, 4)], engines="onnxruntime", immutable_weights=False
    )
    with torch.no_grad():
        for changed in (model, program):
            changed.get_parameter("0.weight").mul_(2)
            changed.get_buffer("1.running_var").add_(0.5)
        assert_equal(program(randn(3, 4)), model(randn(3, 4)))
        portrt.save(program, tmp_path / "model.pt2")
        loaded = portrt.load(tmp_path / "model.pt2", output_format="module", fallback="error")
        assert set(loaded.state_dict()) >= {"0.weight", "1.running_var"}


def test_torch_finds_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the entry point that pyproject.toml declares."""
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition('[project.entry-points."torch_dynamo_backends"]\n')[2]
    name, _, target = section.splitlines()[0].partition(" = ")
    info = tmp_path / "stand_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[torch_dynamo_backends]\n{name} = {target.strip(chr(34))}\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (point,) = {
        p for p in metadata.entry_points(group="torch_dynamo_backends") if p.name == "portrt"
    }
    assert point.load() is portrt_backend
