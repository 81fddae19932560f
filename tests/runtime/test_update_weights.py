"""New weights for compiled programs: the numbers are those of the model that has them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Mlp, edit_program
from torch import nn

import portrt
from portrt.errors import InputError, NoUsableEngineError, SettingsError
from portrt.format.manifest import decode
from portrt.runtime.calls import engine_calls, manifests_of

X = torch.linspace(-2, 2, 32).reshape(4, 8)


class Tied(nn.Module):
    """Tied embeddings, layers of equal numbers, weights that nothing uses, buffers of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight
        self.small = nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.unused = nn.Linear(3, 3)
        self.register_buffer("shift", torch.ones(8))
        self.register_buffer("hidden", torch.ones(8), persistent=False)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls.add_(1)
        y = self.embed(ids) + self.shift * self.hidden
        for norm in self.norms:
            y = norm(y) * self.scale
        return self.head(y) + self.calls, self.small(y)


class Images(nn.Module):
    """Batch norms of different sizes, and a weight that is computed of others."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 40, 1),
            nn.BatchNorm2d(40),
        )
        self.last = norm(nn.Linear(40, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.layers(x).mean((2, 3))
        out: torch.Tensor = self.last(pooled)
        return out


INPUTS = {Tied: torch.tensor([[1, 2, 9]]), Images: torch.rand(2, 3, 6, 6), Mlp: X}


def randomized(kind: type[nn.Module], seed: int) -> nn.Module:
    """A model with other numbers in every tensor, positive ones in the variances."""
    torch.manual_seed(seed)
    made = kind().eval()
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0)
    return made


def compiled(kind: type[nn.Module], **options: Any) -> torch.nn.Module:
    options = {"engines": ["onnxruntime"], "min_block_size": 1, **options}
    torch.manual_seed(0)
    return portrt.compile(kind().eval(), inputs=[INPUTS[kind]], **options)


def assert_computes(program: Callable[..., Any], model: nn.Module, calls: int = 2) -> None:
    """Compare each output, of several calls: buffers change between them."""
    kind = type(model)
    own = copy.deepcopy(model)
    for _ in range(calls):
        torch.testing.assert_close(program(INPUTS[kind]), own(INPUTS[kind]), rtol=1e-4, atol=1e-5)


OPTIONS: dict[str, dict[str, Any]] = {
    "in engines": {},
    "in PyTorch too": {"torch_executed_ops": ["aten.layer_norm", "aten.relu", "aten.mean"]},
    "kept apart": {"immutable_weights": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", [Tied, Images])
def test_a_whole_state_dict_is_followed(
    kind: type[nn.Module], options: dict[str, Any], tmp_path: Path
) -> None:
    """By open sessions, by what runs in PyTorch, by saved files, and by those loaded and mapped."""
    module = compiled(kind, **options)
    module(INPUTS[kind])
    other = randomized(kind, 1)
    update = module.update_weights(other.state_dict())
    assert not update.stale
    assert_computes(module, other)
    fresh = compiled(kind, **options)
    fresh.update_weights(other.state_dict())
    portrt.save(fresh, tmp_path / "new.pt2")
    loaded = portrt.load(tmp_path / "new.pt2", verify=True)
    assert_computes(loaded.module(), other)
    mapped = portrt.load(tmp_path / "new.pt2", output_format="module")
    third = randomized(kind, 2)
    assert mapped.update_weights(third.state_dict()).changed
    assert_computes(mapped, third)
    loaded.update_weights(third.state_dict())
    assert_computes(loaded.module(), third)
    kept = portrt.load(tmp_path / "new.pt2", verify=True)
    assert_computes(kept.module(), other)  # the file was not written to


def test_an_adapter_is_merged_and_taken_out_again() -> None:
    module, model = compiled(Mlp), randomized(Mlp, 3)
    module.update_weights(model.state_dict())
    before = module(X)
    down, up = torch.randn(2, 8), torch.randn(16, 2)
    merged = copy.deepcopy(model)
    with torch.no_grad():
        merged.first.weight += 0.5 * up @ down
    name = "first.weight"
    update = module.update_weights({name: merged.state_dict()[name]}, strict=False)
    assert update.changed == (name,)
    assert_computes(module, merged)
    module.update_weights({name: model.state_dict()[name]}, strict=False)
    assert torch.equal(module(X), before)


def test_equal_numbers_change_nothing() -> None:
    module, model = compiled(Mlp), randomized(Mlp, 3)
    module.update_weights(model.state_dict())
    image = module.portrt_weights
    assert module.update_weights(model.state_dict()).changed == ()
    assert module.portrt_weights is image


def _wrong(name: str, tensor: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda given: given.update({name: tensor})


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (lambda given: given.pop("small.bias"), "missing are 'small.bias'"),
    "unexpected": (_wrong("other", torch.ones(1)), "unexpected are 'other'"),
    "shape": (
        _wrong("small.bias", torch.ones(3)),
        r"'small.bias' has the shape \(3,\), not \(2,\)",
    ),
    "rank": (_wrong("scale", torch.ones(1)), r"'scale' has the shape \(1,\), not \(\)"),
    "dtype": (_wrong("shift", torch.ones(8).double()), "'shift' is float64, not float32"),
    "no tensor": (_wrong("shift", [1.0] * 8), "'shift' is list"),
    "meta": (_wrong("shift", torch.ones(8, device="meta")), "'shift' is on the meta device"),
    "sparse": (_wrong("shift", torch.ones(8).to_sparse()), "'shift' is torch.sparse_coo"),
    "unused": (_wrong("unused.bias", torch.ones(4)), "'unused.bias' has the shape"),
    "tied": (_wrong("head.weight", torch.zeros(10, 8)), "'embed.weight' and 'head.weight' are one"),
}


def test_what_does_not_fit_is_named_and_changes_nothing() -> None:
    module, model = compiled(Tied), randomized(Tied, 4)
    module.update_weights(model.state_dict())
    text, image = manifests_of(module), module.portrt_weights
    for edit, message in FAULTS.values():
        given: dict[str, Any] = dict(randomized(Tied, 5).state_dict())
        edit(given)
        with pytest.raises(InputError, match=message):
            module.update_weights(given)
    assert manifests_of(module) == text
    assert module.portrt_weights is image
    assert_computes(module, model)


def test_names_are_left_out_where_that_is_meant() -> None:
    module, model = compiled(Tied), randomized(Tied, 4)
    module.update_weights(model.state_dict())
    given = {"head.weight": torch.rand(10, 8), "nowhere": torch.ones(1)}
    module.update_weights(given, strict=False)
    model.load_state_dict(given, strict=False)
    assert_computes(module, model)


def test_a_tied_tensor_may_be_given_once() -> None:
    """As files have it that store no tensor twice."""
    module, model = compiled(Tied), randomized(Tied, 4)
    given = dict(model.state_dict())
    del given["head.weight"]
    module.update_weights(given)
    assert_computes(module, model)


class Folded(nn.Module):
    """A size, and a constant, that follow from buffers."""

    def __init__(self, count: int = 2) -> None:
        super().__init__()
        self.register_buffer("mask", torch.arange(8) < count)
        self.line = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)[:, self.mask]


def test_numbers_that_became_sizes_are_refused() -> None:
    INPUTS[Folded] = X
    module = compiled(Folded)
    other = Folded().eval()
    module.update_weights(other.state_dict())
    assert_computes(module, other)
    with pytest.raises(InputError, match="'mask' has different numbers"):
        module.update_weights(Folded(3).state_dict())
    assert_computes(module, other)


def test_what_is_not_finite_any_more_runs_in_pytorch() -> None:
    """Rewrites for ONNX Runtime may hold for finite numbers alone."""
    module, model = compiled(Mlp), randomized(Mlp, 3)
    with torch.no_grad():
        model.first.weight[0, 0] = torch.inf
    (stale,) = module.update_weights(model.state_dict()).stale
    assert stale[:2] == ("block_0", "onnxruntime")
    with pytest.warns(UserWarning, match="runs in PyTorch"):
        found = module(X)
    torch.testing.assert_close(found, model(X))
    module.update_weights(randomized(Mlp, 4).state_dict())  # no engine is left to open
    with pytest.warns(UserWarning, match="runs in PyTorch"):
        assert_computes(module, randomized(Mlp, 4))


def test_an_engine_that_holds_weights_is_removed(tmp_path: Path) -> None:
    """Such as one that was built before small weights were kept apart."""
    program = tiny.compiled("onnxruntime")
    edit_program(program, lambda entry: entry["engines"][0].update(weights=[]))
    model = randomized(Mlp, 3)
    update = program.update_weights(model.state_dict())
    assert [(name, backend) for name, backend, _ in update.stale] == [("block_0", "onnxruntime")]
    assert "it holds 'first.weight' itself" in str(update)
    assert sorted(program.constants) == ["portrt_block_0_source", "portrt_weights"]
    portrt.save(program, tmp_path / "new.pt2")
    loaded = portrt.load(tmp_path / "new.pt2", verify=True)
    (text,) = manifests_of(loaded)
    assert (decode(text).engines, decode(text).blob_count) == ((), 2)
    with pytest.warns(UserWarning, match="runs in PyTorch"):
        assert_computes(loaded.module(), model)


def test_nothing_is_changed_where_nothing_could_run() -> None:
    program = tiny.compiled("onnxruntime", fallback="error")
    edit_program(program, lambda entry: entry["engines"][0].update(weights=[]))
    before = dict(program.constants)
    with pytest.raises(NoUsableEngineError, match="no engine of block_0 follows the new weights"):
        program.update_weights(randomized(Mlp, 3).state_dict())
    assert program.constants == before


def test_an_engine_with_wrong_numbers_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    from portrt.engines.onnxruntime.session import OnnxRuntimeSession

    program, model = tiny.compiled("onnxruntime"), randomized(Mlp, 3)
    run = OnnxRuntimeSession.run
    with monkeypatch.context() as patched:
        patched.setattr(OnnxRuntimeSession, "run", lambda *a: [x + 1 for x in run(*a)])
        unchecked = copy.deepcopy(program)
        assert not unchecked.update_weights(model.state_dict(), check=False).stale
        (stale,) = program.update_weights(model.state_dict()).stale
    assert "differs from PyTorch's" in stale[2]
    (node,) = engine_calls(unchecked)
    assert decode(node.args[2]).engines[0].check is None
    assert_computes(unchecked.module(), model)


def test_the_comparison_is_recorded() -> None:
    program = tiny.compiled("onnxruntime")
    program.update_weights(randomized(Mlp, 3).state_dict())
    (text,) = manifests_of(program)
    check = decode(text).engines[0].check or {}
    assert check["device"] == "cpu"
    assert [row["ok"] for row in check["outputs"]] == [True, True]


@pytest.mark.parametrize("kind", [Mlp, Tied])
def test_threads_see_old_or_new_numbers(kind: type[nn.Module]) -> None:
    """`Tied` with its norms in PyTorch: a call reads several tensors of the module."""
    apart = {"torch_executed_ops": ["aten.layer_norm"]} if kind is Tied else {}
    module = compiled(kind, **apart)
    models = [randomized(kind, seed) for seed in (1, 2)]
    for model in models:
        if kind is Tied:
            model.calls.zero_()
    wanted = []
    for model in models:
        found = copy.deepcopy(model)(INPUTS[kind])
        wanted.append(found[1] if kind is Tied else found)
    module.update_weights(models[0].state_dict())
    failures: list[str] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            found = module(INPUTS[kind])
            found = found[1] if kind is Tied else found
            if not any(torch.allclose(found, one, rtol=1e-3, atol=1e-4) for one in wanted):
                failures.append(str(found))
                return

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(1, 11):
        module.update_weights(models[turn % 2].state_dict(), check=False)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_other_modules_of_a_program_keep_their_numbers() -> None:
    """Their blobs are others: a block is never found again by some of its blobs."""
    program, model = tiny.compiled("onnxruntime"), tiny.model()
    before = program.module()
    assert_computes(before, model)
    program.update_weights(randomized(Mlp, 3).state_dict())
    assert_computes(before, model)
    assert_computes(program.module(), randomized(Mlp, 3))


@pytest.mark.parametrize("options", [{}, OPTIONS["in PyTorch too"]], ids=["engine", "both"])
def test_copies_of_a_module_keep_their_numbers(options: dict[str, Any], tmp_path: Path) -> None:
    module, first, second = compiled(Tied, **options), randomized(Tied, 1), randomized(Tied, 2)
    module.update_weights(first.state_dict())
    copied = copy.deepcopy(module)
    copied.update_weights(second.state_dict())
    again = copy.deepcopy(copied)
    for index, (one, model) in enumerate([(module, first), (copied, second), (again, second)]):
        portrt.save(one, tmp_path / f"{index}.pt2")
        assert_computes(portrt.load(tmp_path / f"{index}.pt2", verify=True).module(), model)
        assert_computes(one, model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    old, new = Mlp().eval().to(dtype), Mlp().eval().to(dtype)
    x = X.to(dtype)
    module = portrt.compile(old, inputs=[x], engines=["onnxruntime"], min_block_size=1)
    assert not module.update_weights(new.state_dict()).stale
    torch.testing.assert_close(module(x), new(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("given", [None, nn.Linear(2, 2), [("weight", torch.ones(2))], "weights"])
def test_what_is_no_state_dict_is_refused(given: Any) -> None:
    module: Any = portrt.compile(
        nn.Linear(2, 2).eval(), inputs=[torch.ones(1, 2)], engines="onnxruntime", min_block_size=1
    )
    with pytest.raises(InputError, match=r"update_weights was given a [^$]*model\.state_dict\(\)"):
        module.update_weights(given)


def test_an_update_within_a_call_is_refused() -> None:
    """Another call that is under way might wait for it."""
    first, second = randomized(Tied, 1), randomized(Tied, 2)
    ids = INPUTS[Tied]
    module: Any = portrt.compile(first, inputs=[ids], engines="onnxruntime", min_block_size=1)
    module.register_forward_hook(lambda *_: module.update_weights(second.state_dict()))
    with pytest.raises(SettingsError, match="within a call"):
        module(ids)


def test_openvino_engines_follow() -> None:
    first, second = randomized(Mlp, 1), randomized(Mlp, 2)
    module: Any = portrt.compile(first, inputs=[X], engines="openvino", min_block_size=1)
    module(X)
    assert module.update_weights(second.state_dict()).stale == ()
    torch.testing.assert_close(module(X), second(X), rtol=1e-4, atol=1e-5)
    assert "openvino: yes" in repr(module)
