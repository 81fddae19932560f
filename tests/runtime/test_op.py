"""The operator: inputs, shapes, threads, lifetime."""

from __future__ import annotations

import copy
import gc
import io
import resource
import sys
import threading
import tracemalloc
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import Call, call_of, compiled, model, shared
from torch import nn

import portrt
from portrt.engines.onnxruntime.session import OnnxRuntimeSession
from portrt.errors import InputError, PackageError
from portrt.runtime import op, policy
from portrt.runtime.calls import engine_calls

X = torch.linspace(-1, 1, 24).view(3, 8)
execute = torch.ops.portrt.execute_engine


@pytest.fixture
def call() -> Call:
    return call_of(shared("onnxruntime"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """Every session of ONNX Runtime that is opened."""
    seen: list[weakref.ref[Any]] = []
    real = OnnxRuntimeSession.__init__

    def init(self: OnnxRuntimeSession, *args: Any, **kwargs: Any) -> None:
        seen.append(weakref.ref(self))
        real(self, *args, **kwargs)

    monkeypatch.setattr(OnnxRuntimeSession, "__init__", init)
    yield seen


def reloaded(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def compile_module(module: nn.Module, *inputs: Any) -> torch.export.ExportedProgram:
    program = portrt.compile(
        module.eval(),
        inputs=list(inputs),
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    assert isinstance(program, torch.export.ExportedProgram)
    return program


# Inputs


BAD_INPUTS = {
    "none": ([], "block_0 was given 0 inputs", "1: x"),
    "two": ([X, X], "block_0 was given 2 inputs", "1: x"),
    "float64": ([X.double()], "input 'x' of block_0 is torch.float64", "torch.float32"),
    "float16": ([X.half()], "input 'x' of block_0 is torch.float16", "torch.float32"),
    "int64": ([X.long()], "input 'x' of block_0 is torch.int64", "torch.float32"),
    "rank 1": ([X[0]], "input 'x' of block_0 has shape (8,)", "rank 2"),
    "rank 3": ([X[None]], "input 'x' of block_0 has shape (1, 3, 8)", "rank 2"),
    "rank 0": ([X[0, 0]], "input 'x' of block_0 has shape ()", "rank 2"),
    "width": ([X[:, :7]], "input 'x' of block_0 has shape (3, 7)", "8 in dimension 1"),
    "below": ([X[:0]], "has shape (0, 8)", "a size from 1 to 32 in dimension 0"),
    "above": ([X[:1].repeat(33, 1)], "has shape (33, 8)", "a size from 1 to 32 in dimension 0"),
}


@pytest.mark.parametrize("used", [False, True], ids=["first call", "later call"])
@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_wrong_input_is_named_with_both_values(call: Call, name: str, used: bool) -> None:
    inputs, happened, expected = BAD_INPUTS[name]
    if used:
        call(X)
    with pytest.raises(InputError) as caught:
        call(*inputs)
    assert happened in caught.value.happened
    assert expected in caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_wrong_input_is_found_while_tracing_too(call: Call, name: str) -> None:
    """On the meta device the fake kernel runs, as it does in torch.export and torch.compile."""
    inputs, happened, expected = BAD_INPUTS[name]
    if not inputs:
        return
    with pytest.raises(InputError) as caught:
        call(*[tensor.to("meta") for tensor in inputs])
    assert happened in caught.value.happened
    assert expected in caught.value.expected


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(a) + torch.sigmoid(b)


@pytest.fixture(scope="module")
def sum_call() -> Call:
    """Two inputs of one batch."""
    a = portrt.Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(9, 4), shared_dims={0: "batch"})
    return call_of(compile_module(Sum(), a, a))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("used", [False, True], ids=["first call", "later call"])
def test_inputs_on_two_devices_are_named(sum_call: Call, order: int, used: bool) -> None:
    inputs = [torch.ones(2, 4), torch.ones(2, 4, device="meta")][::order]
    names = sum_call.entry["inputs"][0]["name"], sum_call.entry["inputs"][1]["name"]
    if used:
        sum_call(torch.ones(2, 4), torch.ones(2, 4))
    with pytest.raises(InputError, match="are on several devices") as caught:
        sum_call(*inputs)
    for name, tensor in zip(names, inputs, strict=True):
        assert f"{name!r} on {tensor.device}" in caught.value.happened


@pytest.mark.parametrize("order", [1, -1])
def test_the_block_itself_finds_two_devices(sum_call: Call, order: int) -> None:
    """torch sends a call with a meta tensor to the fake kernel; with CUDA it comes here."""
    block = op.load_block(sum_call.blobs, sum_call.text)
    good = [torch.ones(2, 4), torch.ones(2, 4)]
    block.run(good)
    with pytest.raises(InputError, match="are on several devices"):
        block.run([torch.ones(2, 4), torch.ones(2, 4, device="meta")][::order])


def test_sizes_that_must_be_equal_are_compared(sum_call: Call) -> None:
    sum_call(torch.ones(3, 4), torch.ones(3, 4))
    with pytest.raises(InputError, match=r"has shape \(2, 4\)") as caught:
        sum_call(torch.ones(3, 4), torch.ones(2, 4))
    assert caught.value.expected == "3 in dimension 0"


@pytest.mark.parametrize(
    ("shape", "happened"),
    [
        (
            [["add", ["dim", 0, 0], -4], 4],
            r"x \(3, 8\), output '\w+' would have the shape \(-1, 4\)",
        ),
        ([["floordiv", 4, ["add", ["dim", 0, 0], -3]], 4], "cannot be computed"),
        ([["pow", ["pow", ["add", ["dim", 0, 0], 8], 16], 16], 4], "a size is beyond"),
    ],
    ids=["negative", "divided by zero", "huge"],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_inputs_that_give_no_size_are_an_input_error(
    call: Call, shape: Any, happened: str, device: str
) -> None:
    edited = call.edited(lambda entry: entry["outputs"][0].update(shape=shape))
    with pytest.raises(InputError, match=happened):
        edited(X.to(device))


@pytest.mark.parametrize(
    "x",
    [
        torch.linspace(-1, 1, 24).view(8, 3).t(),
        torch.linspace(-1, 1, 96).view(6, 16)[::2, ::2],
        torch.linspace(-1, 1, 8).expand(3, 8),
        torch.linspace(-1, 1, 25)[1:].view(3, 8),
        torch.randn(3, 8, dtype=torch.complex64).conj().imag,
        nn.Parameter(X.clone()),
    ],
    ids=["transposed", "strided", "expanded", "unaligned", "negated", "parameter"],
)
def test_an_input_in_any_memory_gives_the_right_numbers(call: Call, x: torch.Tensor) -> None:
    torch.testing.assert_close(call(x)[0], model()(x.detach()).detach())


def test_inputs_are_never_written(call: Call) -> None:
    x = X.clone()
    call(x)
    assert torch.equal(x, X)
    assert x._version == 0


class Empty(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x) + 1, torch.sum(x, 0)


def test_a_batch_of_nothing_runs() -> None:
    batch = portrt.Input(min_shape=(0, 4), opt_shape=(2, 4), max_shape=(9, 4))
    program = compile_module(Empty(), batch)
    module = program.module()
    for rows in (0, 2, 0):
        x = torch.ones(rows, 4)
        for got, want in zip(module(x), Empty()(x), strict=True):
            assert torch.equal(got, want)


# Outputs


class Views(nn.Module):
    """Returns views of its input, of a weight, of one result twice, and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.sin(x)
        return x.view(2, 4), self.weight.t() + 0, y[:4], y[4:], y.view(2, 4).t(), x.view(4, 2)


@pytest.mark.parametrize("engines", [("onnxruntime",), ()], ids=["engine", "source"])
def test_outputs_are_new_contiguous_memory(engines: tuple[str, ...]) -> None:
    module = Views().eval()
    call = call_of(compile_module(module, torch.randn(8)))
    x = torch.randn(8)
    with policy(engines=engines), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = call(x)
        again = call(x)
    tensors = [x, *call.blobs, *outputs, *again]
    for index, one in enumerate(tensors):
        for other in tensors[index + 1 :]:
            assert one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()
    # As the fake kernel promises: what torch.compile generates goes by these strides.
    fakes = call(x.to("meta"))
    assert [out.stride() for out in outputs] == [fake.stride() for fake in fakes]
    assert [out.shape for out in outputs] == [fake.shape for fake in fakes]


@pytest.mark.parametrize("engines", [("onnxruntime",), ()], ids=["engine", "source"])
def test_a_written_output_changes_nothing_else(engines: tuple[str, ...]) -> None:
    module = Views().eval()
    program = compile_module(module, torch.randn(8)).module()
    x = torch.randn(8)
    with policy(engines=engines), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = x.clone()
        for output in program(x):
            output.zero_()
        assert torch.equal(x, kept)
        for got, want in zip(program(x), module(x), strict=True):
            torch.testing.assert_close(got, want.detach())


@pytest.mark.parametrize("engines", [("onnxruntime",), ()], ids=["engine", "source"])
def test_no_gradients(call: Call, engines: tuple[str, ...]) -> None:
    x = X.clone().requires_grad_()
    with policy(engines=engines), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (result,) = call(x)
    assert not result.requires_grad
    assert result.grad_fn is None


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(call: Call, requires_grad: bool) -> None:
    x = X.clone().requires_grad_(requires_grad)
    arguments = ([x], list(call.blobs), call.text)
    found = torch.library.opcheck(execute.default, arguments)
    assert set(found.values()) == {"SUCCESS"}
    assert len(found) == 4


def test_opcheck_of_the_source() -> None:
    call = call_of(compile_module(Views().eval(), torch.randn(8)))
    with policy(engines=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.library.opcheck(
            execute.default, ([torch.randn(8)], list(call.blobs), call.text)
        )
    assert set(found.values()) == {"SUCCESS"}


# Shapes


class Shapes(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n = x.shape[0]
        flat = torch.relu(x).reshape(-1)
        return flat, torch.relu(x)[: n - 1], torch.cat([x, x, x[:1]])


def test_symbolic_shapes_survive_another_export() -> None:
    rows = portrt.Input(min_shape=(3, 3), opt_shape=(4, 3), max_shape=(20, 3))
    program = compile_module(Shapes(), rows)
    before = {str(bounds) for bounds in program.range_constraints.values()}
    dim = torch.export.Dim("n", min=3, max=20)
    again = torch.export.export(
        reloaded(program).module(), (torch.ones(5, 3),), dynamic_shapes=({0: dim},)
    )
    assert {str(bounds) for bounds in again.range_constraints.values()} == before
    (symbol,) = again.range_constraints
    shapes = [str(tuple(node.meta["val"].shape)) for node in again.graph.output_node().args[0]]
    assert shapes == [f"(3*{symbol},)", f"({symbol} - 1, 3)", f"(2*{symbol} + 1, 3)"]
    for size in (3, 7, 20):
        x = torch.randn(size, 3)
        for got, want in zip(again.module()(x), Shapes()(x), strict=True):
            assert torch.equal(got, want)


def test_the_fake_kernel_follows_a_wider_decomposition(call: Call) -> None:
    program = shared("onnxruntime").run_decompositions()
    torch.testing.assert_close(program.module()(X), model()(X).detach())


# Sessions


def test_a_session_is_opened_at_the_first_call_and_once(call: Call, opened: list[Any]) -> None:
    op.load_block(call.blobs, call.text)
    assert opened == []
    for rows in (1, 3, 7, 3):
        call(torch.ones(rows, 8))
    assert len(opened) == 1


def test_many_threads_open_one_session_and_get_their_own_numbers(opened: list[Any]) -> None:
    call = call_of(shared("onnxruntime"))
    start, wrong = threading.Barrier(8), []
    reference = model()

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        start.wait()
        for step in range(100):
            x = torch.randn(1 + (seed + step) % 31, 8, generator=generator)
            with torch.no_grad():
                if not torch.allclose(call(x)[0], reference(x), atol=1e-5):
                    wrong.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(opened) == 1


def test_threads_that_load_at_once_share_one_block() -> None:
    call = call_of(shared("onnxruntime"))
    start = threading.Barrier(8)
    blocks: list[Any] = []

    def work() -> None:
        start.wait()
        blocks.append(op.load_block(call.blobs, call.text))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, blocks))) == 1


def test_a_block_is_forgotten_with_its_program(opened: list[Any]) -> None:
    program = reloaded(shared("onnxruntime"))
    module = program.module()
    module(X)
    gc.collect()
    known = set(op._blocks)
    assert opened[0]() is not None
    del program, module
    gc.collect()
    assert opened[0]() is None
    assert len(known - set(op._blocks)) == 1
    assert set(op._blocks) == set(op._same_blobs)
    assert {key for _, keys in op._watched.values() for key in keys} == set(op._blocks)
    assert all(blob() is not None for blob, _ in op._watched.values())


def test_a_block_lives_while_its_program_does(opened: list[Any]) -> None:
    module = reloaded(shared("onnxruntime")).module()
    for _ in range(3):
        module(X)
        gc.collect()
    assert len(opened) == 1


def scaled_image(image: torch.Tensor, factor: float) -> torch.Tensor:
    """The same weights image with all numbers multiplied."""
    image = image.clone()
    header = 8 + int.from_bytes(bytes(image[:8].tolist()), "little")
    image[header:] = (image[header:].view(torch.float32) * factor).view(torch.uint8)
    return image


def scaled_model(factor: float) -> nn.Module:
    """The model of such an image."""
    scaled = model()
    with torch.no_grad():
        for parameter in scaled.parameters():
            parameter.mul_(factor)
    return scaled


def test_programs_one_after_another_are_not_mixed_up() -> None:
    """The next blobs may lie at the addresses, and have the ids, of the last ones."""
    ids = set()
    call = call_of(shared("onnxruntime"))
    for factor in range(1, 13):
        image = scaled_image(call.blobs[0], factor)
        fresh = Call((image, *(blob.clone() for blob in call.blobs[1:])), call.entry)
        ids.add(id(fresh.blobs[-1]))
        with torch.no_grad():
            torch.testing.assert_close(fresh(X)[0], scaled_model(factor)(X))
        del fresh, image
    assert len(ids) < 12  # ids were reused, or this proves nothing


def test_a_deep_copy_runs_and_outlives_the_original(opened: list[Any]) -> None:
    module = reloaded(shared("onnxruntime")).module()
    want = module(X)
    copied = copy.deepcopy(module)
    assert torch.equal(copied(X), want)
    del module
    gc.collect()
    assert [session() is None for session in opened] == [True, False]
    assert torch.equal(copied(X), want)
    assert len(opened) == 2


def test_blocks_whose_last_blobs_are_one_tensor_open_once_each(opened: list[Any]) -> None:
    """As where equal constants were merged: two manifests, one key."""
    call = call_of(shared("onnxruntime"))
    other = call.edited(lambda entry: entry.update(name="twin"))
    for _ in range(5):
        assert torch.equal(call(X)[0], other(X)[0])
    assert len(opened) == 2
    with pytest.raises(InputError, match="twin"):
        other(X[0])
    with pytest.raises(InputError, match="block_0"):
        call(X[0])
    del call, other
    gc.collect()
    assert [session() for session in opened] == [None, None]


@pytest.mark.parametrize("engines", [("onnxruntime",), ()], ids=["engine", "source"])
def test_other_weights_give_other_numbers(engines: tuple[str, ...], opened: list[Any]) -> None:
    """The engine and the source are the same tensors in both calls."""
    call = call_of(shared("onnxruntime"))
    images = {factor: scaled_image(call.blobs[0], factor) for factor in (1, 2, -3)}
    with policy(engines=engines), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for factor in (1, 2, -3, 1, 2):
            (found,) = call.with_blob(0, images[factor])(X)
            torch.testing.assert_close(found, scaled_model(factor)(X))
    assert len(opened) == len(engines) * len(images)


def test_the_weights_of_a_module_can_be_replaced() -> None:
    program = reloaded(shared("onnxruntime"))
    (node,) = engine_calls(module := program.module())
    name = str(node.args[1][0].target)
    with torch.no_grad():
        module(X)
        for factor in (2.0, -3.0):
            setattr(module, name, scaled_image(getattr(program.module(), name), factor))
            torch.testing.assert_close(module(X), scaled_model(factor)(X))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_each_blob_is_looked_at(place: int) -> None:
    """A damaged source or engine is found, and a weights image that is none."""
    call = call_of(shared("onnxruntime"))
    call(X)
    damaged = call.blobs[place].clone()
    damaged[-1] ^= 0xFF
    if place == 0:
        damaged[:] = 0
    with policy(engines=() if place == 1 else None), pytest.raises(PackageError):
        call.with_blob(place, damaged)(X)
    torch.testing.assert_close(call(X)[0], model()(X).detach())


def test_a_block_is_forgotten_with_any_of_its_blobs(opened: list[Any]) -> None:
    call = call_of(shared("onnxruntime"))
    for place in range(len(call.blobs)):
        other = call.with_blob(place, call.blobs[place].clone())
        other(X)
        assert opened[-1]() is not None
        del other
        assert opened[-1]() is None
    watched = {id(blob) for blob in call.blobs}
    assert not any(keys for blob, (_, keys) in op._watched.items() if blob in watched)


@pytest.fixture
def script() -> Any:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(shared("onnxruntime").module(), X, check_trace=False), file)
        file.seek(0)
        return torch.jit.load(file)


def test_torchscript_opens_one_session(script: Any, opened: list[Any]) -> None:
    """Its tensors are C++ ones: their Python objects may come and go between the calls."""
    reference = model()
    for rows in range(1, 6):
        x = torch.ones(rows, 8)
        torch.testing.assert_close(script(x), reference(x).detach())
        del x
        gc.collect()
    assert len(opened) == 1


def test_torchscript_in_many_threads_opens_one_session(script: Any, opened: list[Any]) -> None:
    def work() -> None:
        for rows in range(1, 30):
            script(torch.ones(rows, 8))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def test_a_torchscript_block_is_forgotten_with_its_module(script: Any, opened: list[Any]) -> None:
    module = torch.jit.freeze(script.eval())
    module(X)
    assert opened[0]() is not None
    del module
    # The fixture holds `script` itself, whose constants the frozen module shares.
    known = len(op._blocks)
    other = call_of(shared("onnxruntime"))
    other(X)
    assert len(op._blocks) == known + 1
    del other
    gc.collect()
    assert len(op._blocks) == known


def test_two_thousand_calls_of_changing_shapes_leak_nothing() -> None:
    batch = portrt.Input(min_shape=(1, 8), opt_shape=(4, 8), max_shape=(100_000, 8))
    module = compile_module(model(), batch).module()
    kept = torch.zeros(3000, 8)

    def calls(first: int, count: int) -> None:
        for rows in range(first, first + count):
            module(kept[:rows])

    calls(1, 1100)  # past the number of shapes that are remembered
    gc.collect()
    tracemalloc.start()
    before, rss = tracemalloc.get_traced_memory()[0], _rss()
    calls(900, 2000)
    gc.collect()
    grown, grown_rss = tracemalloc.get_traced_memory()[0] - before, _rss() - rss
    tracemalloc.stop()
    # 1024 remembered shapes take some 400 bytes each; an output kept by each call, 2000 * 16 kB.
    assert grown < 2 << 20
    assert grown_rss < 16 << 20


def test_two_hundred_programs_leak_nothing() -> None:
    call = call_of(shared("onnxruntime"))

    def load_and_run(count: int) -> None:
        for _ in range(count):
            Call(tuple(blob.clone() for blob in call.blobs), call.entry)(X)

    load_and_run(50)
    gc.collect()
    before, known = _rss(), len(op._blocks)
    load_and_run(200)
    gc.collect()
    assert len(op._blocks) == known
    assert _rss() - before < 30 << 20  # a session of ONNX Runtime takes some 400 kB


def _rss() -> int:
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_registering_again_from_many_threads_is_no_error() -> None:
    threads = [threading.Thread(target=op.register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert str(execute.default._schema).startswith("portrt::execute_engine(Tensor[] inputs, ")


def test_a_compiled_program_runs_under_torch_compile_and_inference_mode() -> None:
    module = compiled("onnxruntime").module()
    want = model()(X).detach()
    with torch.inference_mode():
        torch.testing.assert_close(module(X), want)
    traced = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(traced(X), want)
