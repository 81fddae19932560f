"""Measures one candidate of a benchmark in its own process: JSON job in, JSON figures out."""

from __future__ import annotations

import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from portrt.engines.onnxruntime.types import value_over
from portrt.errors import PackageError, PortrtError
from portrt.files.profiling.measure import only, wait
from portrt.format.manifest import decode
from portrt.format.onnx_wire import external_fault
from portrt.graphs.program_inputs import call_arguments, flat_signature
from portrt.runtime import policy
from portrt.runtime.calls import engine_calls
from portrt.runtime.load import load
from portrt.runtime.module import module_of
from portrt.runtime.op import load_block
from portrt.runtime.random_inputs import sample_inputs
from portrt.weights import WeightsImage

WARM_UP_SECONDS = 0.3


def main() -> None:
    """Run the job on standard input, and print its figures."""
    job = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    try:
        with torch.no_grad(), policy(trust=job["trust"] or None), only(job["engine"]):
            answer = _measure(job)
    except PortrtError as err:
        answer = {"error": [type(err).__name__, err.happened, err.expected, err.remedy]}
    sys.stdout.write(json.dumps(answer))


def _measure(job: Mapping[str, Any]) -> dict[str, Any]:
    device = torch.device(job["device"])
    program = load(job["path"])
    if job["inputs"]:
        from portrt.files.read_inputs import read_inputs

        flat = read_inputs(tuple(job["inputs"]), flat_signature(program))
    else:
        flat = sample_inputs(program, job["shapes"], job["seed"])
    flat = [item.to(device) if isinstance(item, torch.Tensor) else item for item in flat]
    if job["bare"]:
        call, ran = _bare_session(program, flat), ["onnxruntime"]
    else:
        args, kwargs = call_arguments(program, flat)
        module = module_of(program)
        call = lambda: module(*args, **kwargs)  # noqa: E731
        call()
        ran = [_runs_as(program, node, device) for node in engine_calls(program)]
    latencies = _latencies(call, device, job["seconds"])
    rate = _throughput(call, device, job)
    return {"engines": ran, "latencies": latencies, "calls_per_second": rate}


def _runs_as(program: torch.export.ExportedProgram, node: torch.fx.Node, device: Any) -> str:
    return load_block(_blobs(program, node), str(node.args[2])).selection(device).name


def _blobs(program: torch.export.ExportedProgram, node: torch.fx.Node) -> list[torch.Tensor]:
    names = program.graph_signature.inputs_to_lifted_tensor_constants
    blobs: Any = node.args[1]
    return [program.constants[names[blob.name]] for blob in blobs]


def _bare_session(program: torch.export.ExportedProgram, flat: list[Any]) -> Callable[[], Any]:
    """Return `run` of a plain ONNX Runtime session of the stored engine, on NumPy inputs."""
    import onnxruntime

    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    engines = [node for node in calls if node in set(engine_calls(program))]
    if len(engines) != 1 or any(n is not engines[0] and "getitem" not in n.name for n in calls):
        raise PackageError(
            "a bare session runs one block alone, and this program has more",
            "a program whose every node is in one block",
            "compare with eager",
        )
    manifest, blobs = decode(str(engines[0].args[2])), _blobs(program, engines[0])
    stored = (e for e in manifest.engines if e.backend == "onnxruntime" and e.parts is None)
    spec = next(stored)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    if spec.weights:
        assert manifest.weights is not None  # decode() checked it
        image = WeightsImage(blobs[manifest.weights.index])
        values = [value_over(image.tensor(name)) for name in spec.weights]
        options.add_external_initializers(list(spec.weights), values)
    data = blobs[spec.data.index].numpy().tobytes()
    if fault := external_fault(data, spec.weights):
        raise PackageError(
            f"the engine of {manifest.name} {fault}",
            "an ONNX model whose weights are in the weights image",
            "get the file again from where it was made",
        )
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = dict(zip(flat_signature(program), flat, strict=True))
    nodes: Any = engines[0].args[0]
    taken = {item.name for item in session.get_inputs()}
    feeds = {
        item.name: given[node.name].contiguous().numpy()
        for item, node in zip(manifest.inputs, nodes, strict=True)
        if item.name in taken
    }
    return lambda: session.run(None, feeds)


def _latencies(call: Callable[[], Any], device: torch.device, seconds: float) -> list[float]:
    """Time each call of one thread, in seconds, until its work on the device is done."""
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - begin < WARM_UP_SECONDS + seconds:
        started = time.perf_counter()
        call()
        wait(device)
        ended = time.perf_counter()
        if ended - begin > WARM_UP_SECONDS:
            found.append(ended - started)
    return found


def _throughput(call: Callable[[], Any], device: torch.device, job: Mapping[str, Any]) -> float:
    """Count calls per second of several threads together, of those that end in the time."""
    threads = job["threads"]
    counts, errors = [0] * threads, []
    begin = threading.Barrier(threads + 1)
    stop = threading.Event()

    def work(index: int) -> None:
        try:  # a policy is local to the thread that set it
            with torch.no_grad(), policy(trust=job["trust"] or None), only(job["engine"]):
                call()
                begin.wait()
                while not stop.is_set():
                    call()
                    wait(device)
                    counts[index] += 1
        except Exception as err:
            errors.append(err)
            begin.abort()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    try:
        begin.wait()
        started = time.perf_counter()
        stop.wait(job["seconds"])
        ended, total = time.perf_counter(), sum(counts)
    except threading.BrokenBarrierError:
        ended = started = total = 0
    stop.set()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return total / (ended - started)


if __name__ == "__main__":
    main()
