"""Cases of the C++ kernel, all in one process, by the name that it has beside Python's.

Prints a JSON object: name of the case -> "" or the traceback. The oracle is eager PyTorch, and for
errors the texts of the Python kernel, which runs before the library is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
import torch

import portrt
from portrt.engines.base import fits
from portrt.errors import PortrtError
from portrt.format.onnx_wire import WEIGHTS_LOCATION, external_fault

sys.path.insert(0, str(Path(__file__).parents[1] / "format"))
import test_onnx_wire as wire

PYTHON_OP = torch.ops.portrt.execute_engine
CASES: dict[str, Callable[[], None]] = {}


def case(function: Callable[[], None]) -> Callable[[], None]:
    CASES[function.__name__] = function
    return function


class Block:
    """The only call of a program."""

    def __init__(self, model: torch.nn.Module, *inputs: Any) -> None:
        self.model = model
        program = portrt.compile(
            model, inputs=list(inputs), engines="onnxruntime", output_format="exported_program"
        )
        self.program = program.module()
        targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
        (node,) = (n for n in program.graph.nodes if "execute_engine" in str(n.target))
        self.blobs = [program.constants[targets[arg.name]] for arg in node.args[1]]
        self.text: str = node.args[2]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        return OP(list(inputs), self.blobs, self.text)

    def changed(self, engine: bytes, weights: list[str]) -> tuple[list[torch.Tensor], str]:
        """Blobs and manifest with another engine."""
        manifest = json.loads(self.text)
        entry = manifest["engines"][0]
        data = torch.frombuffer(bytearray(engine), dtype=torch.uint8)
        blobs = list(self.blobs)
        blobs[entry["data"]["blob"]] = data
        entry["data"].update(size=len(engine), sha256=hashlib.sha256(engine).hexdigest())
        entry["weights"] = weights
        return blobs, json.dumps(manifest, sort_keys=True, separators=(",", ":"))


class Mixed(torch.nn.Module):
    """Many dtypes, ranks from 0 on, and an input that comes back."""

    def forward(
        self, x: torch.Tensor, index: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor
    ) -> Any:
        half = (x * scale).half()
        return (
            torch.where(mask, x, -x)[index],
            half,
            index + 1,
            mask.logical_not(),
            x.double().sum(),
            (index > 1).to(torch.int32),
            torch.cat([x, x], 1),
        )


class Found(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.nonzero(x > 0), x + 1


MLP = Block(tiny.model(), portrt.Input(min_shape=(1, 8), opt_shape=(3, 8), max_shape=(16, 8)))
MIXED = Block(
    Mixed().eval(),
    portrt.Input(min_shape=(0, 3), opt_shape=(4, 3), max_shape=(9, 3)),
    torch.tensor([0, 2, 1]),
    torch.tensor([True, False, True]),
    torch.tensor(2.0),
)
FOUND = Block(Found().eval(), torch.randn(4, 5))
X = torch.linspace(-1, 1, 24).view(3, 8)


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except (PortrtError, RuntimeError) as err:
        return str(err)
    raise AssertionError("no error")


BAD_INPUTS: dict[str, list[torch.Tensor]] = {
    "too many rows": [torch.ones(17, 8)],
    "no rows": [torch.ones(0, 8)],
    "columns": [torch.ones(3, 7)],
    "rank": [torch.ones(8)],
    "rank 0": [torch.tensor(1.0)],
    "dtype": [torch.ones(3, 8).double()],
    "complex": [torch.ones(3, 8, dtype=torch.complex64)],
    "too many": [X, X],
}


def damaged(block: Block) -> tuple[list[torch.Tensor], str]:
    place = json.loads(block.text)["engines"][0]["data"]["blob"]
    blobs = list(block.blobs)
    blobs[place] = blobs[place].clone()
    blobs[place][100] ^= 1
    return blobs, block.text.replace('"name":"block_0"', '"name":"block_7"')


def short(block: Block) -> tuple[list[torch.Tensor], str]:
    return [blob[:-1] for blob in block.blobs], block.text.replace("block_0", "block_8")


def no_blobs(block: Block) -> tuple[list[torch.Tensor], str]:
    return [blob.float() for blob in block.blobs], block.text.replace("block_0", "block_9")


DAMAGES = (damaged, short, no_blobs)
PYTHON = {
    **{
        name: error_of(lambda given=given: PYTHON_OP(given, MLP.blobs, MLP.text))
        for name, given in BAD_INPUTS.items()
    },
    **{made.__name__: error_of(lambda made=made: PYTHON_OP([X], *made(MLP))) for made in DAMAGES},
    "no JSON": error_of(lambda: PYTHON_OP([X], MLP.blobs, MLP.text[:-1])),
}
library = ctypes.CDLL(sys.argv[1])
OP = torch.ops.portrt.execute_engine_cpp
for node in MIXED.program.graph.nodes:
    if node.target is PYTHON_OP.default:
        node.target = OP.default
MIXED.program.recompile()
library.portrt_release_blocks.restype = ctypes.c_size_t


@case
def the_numbers_are_those_of_eager() -> None:
    for rows in (1, 3, 16, 3):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(MLP(x), [MLP.model(x).detach()])
    strided = torch.randn(8, 3).t()
    torch.testing.assert_close(MLP(strided), [MLP.model(strided).detach()])
    torch.testing.assert_close(MLP(X[::2]), [MLP.model(X[::2]).detach()])


@case
def all_dtypes_and_sizes_of_0() -> None:
    index, mask = torch.tensor([2, 0, 1]), torch.tensor([False, True, True])
    for rows in (4, 3, 9):
        x = torch.randn(rows, 3)
        given = (x, index, mask, torch.tensor(0.5))
        outputs = list(MIXED.program(*given))
        expected = [torch.as_tensor(item) for item in MIXED.model(*given)]
        torch.testing.assert_close(outputs, expected)
        assert [item.shape for item in outputs] == [item.shape for item in expected]


@case
def data_dependent_sizes() -> None:
    for x in (torch.randn(4, 5), torch.zeros(4, 5), torch.ones(4, 5)):
        outputs = FOUND(x)
        torch.testing.assert_close(outputs, list(FOUND.model(x)))
        assert fits(outputs[0].shape, (-1, 2))


@case
def wrong_inputs_have_the_texts_of_python() -> None:
    for name, given in BAD_INPUTS.items():
        assert error_of(lambda given=given: MLP(*given)) == PYTHON[name], name


@case
def damaged_calls_have_the_texts_of_python() -> None:
    for made in DAMAGES:
        said = error_of(lambda made=made: OP([X], *made(MLP)))
        said = said.replace(f"has {2**64 - 1} bytes", "has -1 bytes")  # what is no blob at all
        assert said == PYTHON[made.__name__], (said, PYTHON[made.__name__])
    said = error_of(lambda: OP([X], MLP.blobs, MLP.text[:-1]))
    begin = "a manifest is not JSON"  # then each reader's own words
    assert said.startswith(begin) and PYTHON["no JSON"].startswith(begin), said


def wire_models() -> dict[str, bytes]:
    """Models that name files, wherever a tensor may be."""
    weight = wire.outside(WEIGHTS_LOCATION, wire.WEIGHT)
    found = {}
    for name, change in wire.PLACES.items():
        made = wire.model(weight)
        change(made)
        found[name] = made.SerializeToString()
    for place in ("secret.bin", "/etc/passwd", "", "*/_ORT_MEM_ADDR_/*", "weights.safetensors/"):
        found[f"location {place}"] = wire.model(
            wire.outside(place, wire.WEIGHT)
        ).SerializeToString()
    twice = wire.model(weight, weight)
    found["twice"] = twice.SerializeToString()
    whole = wire.model(weight).SerializeToString()
    found["own format"] = whole[:4] + b"ORTM" + whole[8:]
    found["other weight"] = wire.model(wire.outside(WEIGHTS_LOCATION, "other")).SerializeToString()
    found |= {f"first {size}": whole[:size] for size in range(60, len(whole), 7)}
    return found


@case
def no_other_file_is_read() -> None:
    for name, data in wire_models().items():
        fault = external_fault(data, [wire.WEIGHT])
        said = error_of(lambda data=data: OP([X], *MLP.changed(data, [wire.WEIGHT])))
        assert "no engine of block_0 can run here on cpu tensors" in said, said
        assert "the C++ runtime does not run sources" in said, said
        if fault:
            begin = f"the model {fault}"[:60]
            assert begin in said, (name, begin, said)
        else:  # ONNX Runtime's own error
            assert "cannot open the engine" in said, (name, said)


@case
def weights_that_are_not_in_the_image() -> None:
    entry = json.loads(MLP.text)["engines"][0]
    engine = MLP.blobs[entry["data"]["blob"]].numpy().tobytes()
    said = error_of(lambda: OP([X], *MLP.changed(engine, [*entry["weights"], "none"])))
    assert "the weights image has no tensor 'none'" in said, said


@case
def the_policy_of_the_environment() -> None:
    library.portrt_release_blocks()
    os.environ["PORTRT_ENGINES"] = "tensorrt"
    try:
        said = error_of(lambda: MLP(X))
        assert "onnxruntime: no: the policy allows tensorrt" in said, said
        os.environ["PORTRT_FALLBACK"] = "error"
        assert "and the policy forbids PyTorch" in error_of(lambda: MLP(X))
        del os.environ["PORTRT_ENGINES"]
        os.environ["PORTRT_CHECK"] = "first-open"
        assert "could not be compared" in error_of(lambda: MLP(X))
    finally:
        for name in ("PORTRT_ENGINES", "PORTRT_FALLBACK", "PORTRT_CHECK"):
            os.environ.pop(name, None)
    MLP(X)


@case
def four_threads() -> None:
    library.portrt_release_blocks()
    given = [torch.randn(rows, 8) for rows in (1, 5, 9, 16)]
    failures: list[BaseException] = []

    def work(x: torch.Tensor) -> None:
        try:
            expected = MLP.model(x).detach()
            for _ in range(200):
                torch.testing.assert_close(MLP(x), [expected])
        except BaseException as err:
            failures.append(err)

    threads = [threading.Thread(target=work, args=(x,)) for x in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@case
def blocks_are_let_go_of() -> None:
    library.portrt_release_blocks()
    MLP(X)
    FOUND(torch.ones(4, 5))
    assert library.portrt_release_blocks() == 2
    library.portrt_keep_blocks(ctypes.c_size_t(1))
    for _ in range(2):
        MLP(X)
        FOUND(torch.ones(4, 5))
    assert library.portrt_release_blocks() == 1
    library.portrt_keep_blocks(ctypes.c_size_t(4096))


@case
def outputs_are_new_and_without_gradients() -> None:
    first, second = MLP(X.clone().requires_grad_()), MLP(X)
    assert not first[0].requires_grad
    assert first[0].data_ptr() != second[0].data_ptr()


@case
def a_forked_child_has_sessions_of_its_own() -> None:
    MLP(X)
    expected = MLP.model(X).detach()
    child = os.fork()
    if child == 0:
        try:
            torch.testing.assert_close(MLP(X), [expected])
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@case
def the_fake_kernel_is_python() -> None:
    outputs = PYTHON_OP([torch.ones(5, 8, device="meta")], MLP.blobs, MLP.text)
    assert outputs[0].device.type == "meta"
    assert outputs[0].shape == MLP.model(torch.ones(5, 8)).shape


def main() -> None:
    found = {}
    for name, function in CASES.items():
        try:
            function()
            found[name] = ""
        except BaseException:
            found[name] = traceback.format_exc()
    print(json.dumps(found))


main()
