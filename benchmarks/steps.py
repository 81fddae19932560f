"""The steps that benchmarks/main.py times, each in a process of its own: `steps.py NAME FOLDER`.

Figures are taken after the imports that both sides of a comparison share.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

COMPILED, UNCOMPILED, ONNX, CACHE = "compiled.pt2", "uncompiled.pt2", "model.onnx", "cache"


def minilm() -> tuple[Any, Any, Any]:
    """The demo's model with example inputs and dynamic batch and length."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "demo"))
    from main import SentenceEmbedding, model_folder

    model = SentenceEmbedding(model_folder()).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    length = torch.export.Dim("length", min=1, max=256)
    axes = {0: batch, 1: length}
    return model, tokens(2, 16), {"input_ids": axes, "attention_mask": axes}


def tokens(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 30000, (batch, length), generator=generator)
    return ids, torch.ones_like(ids)


def compile_model(folder: Path) -> dict[str, Any]:
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    import portrt

    model, inputs, dynamic_shapes = minilm()
    started = time.perf_counter()
    program = portrt.compile(
        model,
        inputs=inputs,
        dynamic_shapes=dynamic_shapes,
        engines="onnxruntime",
        output_format="exported_program",
    )
    seconds = time.perf_counter() - started
    torch.export.save(program, folder / COMPILED)
    return {"seconds": seconds}


def compile_first(folder: Path) -> dict[str, Any]:
    """With an empty cache, which is filled."""
    shutil.rmtree(folder / CACHE, ignore_errors=True)
    return compile_again(folder)


def compile_again(folder: Path) -> dict[str, Any]:
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    import portrt

    model, inputs, dynamic_shapes = minilm()
    started = time.perf_counter()
    portrt.compile(
        model,
        inputs=inputs,
        dynamic_shapes=dynamic_shapes,
        engines=("tensorrt_rtx", "onnxruntime"),
        output_format="exported_program",
        cache_dir=folder / CACHE,
    )
    return {"seconds": time.perf_counter() - started}


def compile_by_hand(folder: Path) -> dict[str, Any]:
    import onnxruntime
    import onnxscript  # noqa: F401

    model, inputs, dynamic_shapes = minilm()
    started = time.perf_counter()
    with torch.no_grad():
        program = torch.export.export(model, inputs, dynamic_shapes=dynamic_shapes, strict=False)
    onnx_program = torch.onnx.export(program, dynamo=True, verbose=False)
    onnx_program.save(folder / ONNX, external_data=False)
    onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - started
    torch.export.save(program, folder / UNCOMPILED)
    return {"seconds": seconds}


def file_size(folder: Path) -> dict[str, Any]:
    model, _, _ = minilm()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return {"file": (folder / COMPILED).stat().st_size, "weights": weights}


def load(folder: Path) -> dict[str, Any]:
    inputs = tokens(1, 32)
    started = time.perf_counter()
    module = torch.export.load(folder / COMPILED).module()
    module(*inputs)
    return _after(started)


def load_by_hand(folder: Path) -> dict[str, Any]:
    inputs = tokens(1, 32)
    started = time.perf_counter()
    torch.export.load(folder / UNCOMPILED)
    Bare(_bare_session(folder / ONNX))(*inputs)
    return _after(started)


def _after(started: float) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _bare_session(model: Any, options: Any = None) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


_ELEMENT_TYPES = {torch.float32: 1, torch.int64: 7}


class Bare:
    """A session with IO binding, as a user writes it: torch memory in and out of each call."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.binding = session.io_binding()
        self.inputs = [item.name for item in session.get_inputs()]
        (out,) = session.get_outputs()
        self.output, self.width = out.name, out.shape[-1]

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        binding = self.binding
        for name, tensor in zip(self.inputs, inputs, strict=True):
            element = _ELEMENT_TYPES[tensor.dtype]
            binding.bind_input(name, "cpu", 0, element, tensor.shape, tensor.data_ptr())
        result = torch.empty(inputs[0].shape[0], self.width)
        binding.bind_output(self.output, "cpu", 0, 1, result.shape, result.data_ptr())
        self.session.run_with_iobinding(binding)
        return result


def call(folder: Path) -> dict[str, Any]:
    """Each side in a process of its own: the threads of one session spin while another runs."""
    inputs = tokens(1, 32)
    module = torch.export.load(folder / COMPILED).module()
    return _time_call(lambda: module(*inputs))


def call_by_hand(folder: Path) -> dict[str, Any]:
    inputs = tokens(1, 32)
    bare = Bare(_bare_session(folder / ONNX))
    return _time_call(lambda: bare(*inputs))


def call_same_model(folder: Path) -> dict[str, Any]:
    inputs = tokens(1, 32)
    bare = Bare(_session_of_engine(folder / COMPILED))
    return _time_call(lambda: bare(*inputs))


def _time_call(run: Callable[[], Any]) -> dict[str, Any]:
    times = _in_turn({"it": run}, 500)["it"]
    return {"ms": statistics.median(times) * 1e3}


def _session_of_engine(path: Path) -> Any:
    """A bare session of the ONNX model in the file, its weights from the file's image."""
    import onnxruntime

    from portrt.runtime.calls import engine_calls
    from portrt.weights import WeightsImage

    program = torch.export.load(path)
    (node,) = engine_calls(program)
    constants = program.graph_signature.inputs_to_lifted_tensor_constants
    image, _, engine = (program.constants[constants[blob.name]] for blob in node.args[1])
    weights = WeightsImage(image)
    names = json.loads(node.args[2])["engines"][0]["weights"]
    options = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.from_dlpack(weights.tensor(name)) for name in names]
    options.add_external_initializers(names, values)
    session = _bare_session(engine.numpy().tobytes(), options)
    _KEPT.append(program)
    return session


_KEPT: list[Any] = []


def _in_turn(sides: dict[str, Callable[[], Any]], count: int) -> dict[str, list[float]]:
    """Time each side `count` times, in turn, so that the machine's mood hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(count + 20):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            if round_number >= 20:
                times[name].append(time.perf_counter() - started)
    return times


def added_cost(folder: Path) -> dict[str, Any]:
    """A call of the operator less a call of a bare session, which binds the same tensors."""
    import portrt
    from portrt.runtime.calls import engine_calls

    layers = [torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16)]
    model = torch.nn.Sequential(*layers).eval()
    x = torch.randn(4, 16)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = portrt.compile(
        model,
        inputs=[x],
        dynamic_shapes=({0: batch},),
        engines="onnxruntime",
        output_format="exported_program",
    )
    (node,) = engine_calls(program)
    constants = program.graph_signature.inputs_to_lifted_tensor_constants
    blobs = [program.constants[constants[blob.name]] for blob in node.args[1]]
    manifest = node.args[2]
    library = torch.library.Library("bench", "DEF")
    library.define("empty(Tensor[] inputs, Tensor[] blobs, str manifest) -> Tensor[]")
    library.impl("empty", lambda *_: [], "CompositeExplicitAutograd")
    torch.export.save(program, folder / "mlp.pt2")
    bare = Bare(_session_of_engine(folder / "mlp.pt2"))
    bound_before = Bare(bare.session)
    kept = bound_before(x)  # its memory stays bound
    engine, empty = torch.ops.portrt.execute_engine.default, torch.ops.bench.empty.default
    sides = {
        "ours": lambda: engine([x], blobs, manifest),
        "bare": lambda: bare(x),
        "bound_before": lambda: bare.session.run_with_iobinding(bound_before.binding),
        "empty": lambda: empty([x], blobs, manifest),
    }
    torch.testing.assert_close(sides["ours"]()[0], model(x).detach())
    times = _in_turn(sides, 5000)
    us = {name: statistics.median(values) * 1e6 for name, values in times.items()}
    added = us["ours"] - us["bare"]
    return {
        "added_us": added,
        "empty_us": us["empty"],
        "ratio": added / us["empty"],
        **us,
        "kept": len(kept),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    target = Path(sys.argv[2])
    print(json.dumps(globals()[sys.argv[1]](target)))
