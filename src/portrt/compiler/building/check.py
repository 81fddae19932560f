"""Check of an engine's outputs against the block that it was built from.

The reference is the block itself, run in PyTorch on the sample inputs of the compilation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from portrt.compiler.options.precision import PRECISIONS
from portrt.compiler.plan import Block, Engine, Plan
from portrt.engines import registry
from portrt.engines.base import OpenOptions, Session
from portrt.errors import BuildError, CheckError, EngineError, OutOfProfileError
from portrt.format.manifest import EngineSpec
from portrt.graphs.control_flow import subgraph_sites
from portrt.numerics.compare import arithmetic_of, compare_outputs
from portrt.numerics.fast_extremes import takes_nan
from portrt.numerics.judge import excuse_rows
from portrt.runtime.open_engine import open_engine
from portrt.runtime.random_inputs import random_block_inputs
from portrt.torch_internals import run_flat
from portrt.weights import WeightsImage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Real inputs of one block, and the outputs that PyTorch computes from them."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class FirstRun:
    """An opened engine, and its run on the sample.

    Attributes:
        session: The engine.
        inputs: What it was run on.
        outputs: What it returned.
        seconds: How long it took.
    """

    session: Session
    inputs: tuple[torch.Tensor, ...]
    outputs: Sequence[torch.Tensor]
    seconds: float


@dataclass(frozen=True)
class PlannedRun:
    """One run of a planned program in PyTorch.

    Attributes:
        samples: Block name -> its inputs and outputs.
        outputs: Outputs of the program's graph.
    """

    samples: Mapping[str, Sample]
    outputs: tuple[Any, ...]


def sample_blocks(plan: Plan, captured: ExportedProgram) -> PlannedRun:
    """Run the program in PyTorch on its example inputs, and record inputs and outputs per block.

    The result is empty if the program has no example inputs, or fails on them.
    """
    if captured.example_inputs is None:
        return PlannedRun({}, ())
    try:
        return run_in_pytorch(plan, pytree.tree_leaves(captured.example_inputs))
    except Exception:
        logger.warning("engines are not checked: the model fails on its inputs", exc_info=True)
        return PlannedRun({}, ())


def run_in_pytorch(plan: Plan, flat: Sequence[Any]) -> PlannedRun:
    """Run the planned program and its blocks in PyTorch.

    Raises:
        Exception: Whatever an operator raises.
    """
    blocks = {block.name: block for block in plan.blocks}
    found: dict[str, Sample] = {}

    def run(name: str, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        outputs = run_block(blocks[name], plan.tensors, inputs)
        found[name] = Sample(tuple(inputs), outputs)
        return outputs

    outputs = run_plan(plan, flat, run)
    return PlannedRun(found, outputs)


def run_plan(
    plan: Plan, flat: Sequence[Any], run: Callable[[str, Sequence[Any]], Any]
) -> tuple[Any, ...]:
    """Run the planned program in PyTorch, with `run(name, inputs)` for its blocks."""
    for site in subgraph_sites(plan.graph_module):
        if site.calls:  # PyTorch calls the blocks of a subgraph by name
            for node in site.module.graph.find_nodes(op="call_module"):
                setattr(site.module, str(node.target), _Recorder(str(node.target), run))
    with torch.no_grad():
        return run_flat(plan.program, (tuple(flat), {}), run)


class _Recorder(torch.nn.Module):
    """Replaces a block's submodule and records its calls."""

    def __init__(self, name: str, run: Callable[[str, Sequence[Any]], Any]) -> None:
        super().__init__()
        self._name, self._run = name, run

    def forward(self, *inputs: Any) -> Any:
        return self._run(self._name, inputs)


def run_block(
    block: Block, tensors: Mapping[str, torch.Tensor], inputs: Sequence[Any]
) -> tuple[torch.Tensor, ...]:
    """Run a block in PyTorch; `tensors` are the program's weights by name."""
    weights = [tensors[name] for name in block.weights]
    interpreter = torch.fx.Interpreter(block.program.graph_module)
    with torch.no_grad():
        return tuple(interpreter.run(*inputs, *weights, enable_io_processing=False))


def check_engine(
    block: Block,
    engine: Engine,
    image: torch.Tensor,
    sample: Sample | None,
    *,
    accept: bool,
    label: str = "",
    trusted: bool = True,
    keep: Callable[[FirstRun], None] = lambda _: None,
) -> Mapping[str, Any]:
    """Compare an engine with its block, and return the entry `check` for the manifest.

    Args:
        block: Block that the engine was built from.
        engine: The engine.
        image: The weights image.
        sample: Inputs and outputs of the block in PyTorch, or None if unknown.
        accept: Log a difference beyond the tolerance instead of raising.
        label: Description of the engine for messages.
        trusted: Whether it may carry host (CPU) code, as engines built in this process may.
        keep: Called with the opened engine and its run.

    Raises:
        BuildError: The engine opens, but fails on the sample.
        CheckError: An output differs by more than its tolerance.
    """
    check = compare_engine(block, engine, image, sample, trusted=trusted, keep=keep)
    for row in check.get("outputs", ()):
        if not row["ok"]:
            _report(label or f"the {engine.backend} engine of {block.name}", engine, row, accept)
    return check


def compare_engine(
    block: Block,
    engine: Engine,
    image: torch.Tensor,
    sample: Sample | None,
    *,
    trusted: bool = True,
    keep: Callable[[FirstRun], None] = lambda _: None,
) -> Mapping[str, Any]:
    """Compare an engine with its block; see `check_engine`, which also reports differences.

    Raises:
        BuildError: The engine opens, but fails on the sample.
    """
    if sample is None:
        return {"skipped": "there were no sample inputs"}
    device = sample.inputs[0].device
    spec, blobs = engine.stored()
    verdict = registry.runtime(engine.backend).accepts(spec, device)
    if not verdict:
        return {"skipped": verdict.reason}
    try:
        session = _opened(block, engine, spec, blobs, image, device, trusted=trusted)
        started = time.perf_counter()
        try:
            outputs = _run(session, sample)
        except OutOfProfileError:  # the sizes of the example inputs are in no profile
            sample = _sample_in_profile(block, image, device)
            outputs = _run(session, sample)
    except EngineError as err:
        raise BuildError(err.happened, err.expected, err.remedy) from err
    keep(FirstRun(session, sample.inputs, outputs, time.perf_counter() - started))
    arithmetic = arithmetic_of(engine.backend, engine.build)
    rows = compare_block(block, image, sample, outputs, arithmetic)
    differs = any(not row["ok"] for row in rows)
    if differs and is_fast(engine) and extremes_take_nan(block, image, sample):
        return {"skipped": 'the sample has NaN in a maximum, which numerics="fast" leaves open'}
    return {"device": device.type, "outputs": rows}


def _opened(
    block: Block,
    engine: Engine,
    spec: EngineSpec,
    blobs: Sequence[bytes],
    image: torch.Tensor,
    device: torch.device,
    *,
    trusted: bool,
) -> Session:
    if engine.opened is not None and engine.opened[0] is engine.data:  # its builder did
        return engine.opened[1]
    inner = engine.parts.engines.values() if engine.parts else ()
    takes_weights = any(item.weights for item in (engine, *inner))
    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in blobs]
    return open_engine(
        spec,
        block.signature,
        lambda blob: tensors[blob.index],
        WeightsImage(image) if takes_weights else None,
        device=device,
        options=OpenOptions(low_memory=True, trusted_host_code=trusted),
    )


def compare_block(
    block: Block,
    image: torch.Tensor,
    sample: Sample,
    outputs: Sequence[torch.Tensor],
    arithmetic: str,
) -> list[dict[str, Any]]:
    """Compare outputs of an engine with those of its block; return a row for each."""

    def arguments() -> list[torch.Tensor]:
        stored = WeightsImage(image)
        device = sample.inputs[0].device
        return [*sample.inputs, *(stored.tensor(name).to(device) for name in block.weights)]

    names = [spec.name for spec in block.outputs]
    module = block.program.graph_module
    rows = compare_outputs(names, outputs, sample.outputs, arithmetic, module, arguments)
    excuse_rows(rows, outputs, sample.outputs, module, arguments, len(sample.inputs))
    return rows


def is_fast(engine: Engine) -> bool:
    """Return whether an engine was built with `numerics="fast"`."""
    return engine.build.get("numerics") == "fast"


def extremes_take_nan(block: Block, image: torch.Tensor, sample: Sample) -> bool:
    """Return whether a maximum or minimum in a block takes NaN on the sample."""
    stored = WeightsImage(image)
    weights = [stored.tensor(name) for name in block.weights]
    return takes_nan(block.program.graph_module, [*sample.inputs, *weights])


def _run(session: Session, sample: Sample) -> list[torch.Tensor]:
    return session.run(sample.inputs, [tuple(out.shape) for out in sample.outputs])


def _sample_in_profile(block: Block, image: torch.Tensor, device: torch.device) -> Sample:
    """Return random inputs of the opt sizes of the first profile, and PyTorch's outputs."""
    inputs = random_block_inputs(block.signature, 0)
    stored = WeightsImage(image)
    weights = [stored.tensor(name) for name in block.weights]
    with torch.no_grad():
        outputs = block.program.module(check_guards=False)(*inputs, *weights)
    return Sample(
        tuple(tensor.to(device) for tensor in inputs), tuple(out.to(device) for out in outputs)
    )


def _report(label: str, engine: Engine, row: Mapping[str, Any], accept: bool) -> None:
    fact = (
        f"{label} differs from PyTorch in output {row['name']!r}: "
        f"largest difference {row['max_abs']}, relative {row['max_rel']}"
    )
    if accept:
        logger.warning("%s; accepted", fact)
        return
    raise CheckError(
        fact,
        f"a relative difference up to {row['tolerance']}",
        _remedy(engine),
        engine.backend,
    )


def _remedy(engine: Engine) -> str:
    if engine.build.get("precision") in PRECISIONS:
        return (
            "name the modules or operators that need float32 in autocast_excluded_modules or "
            "autocast_excluded_ops, or compile with another precision or check='accept'"
        )
    return (
        "find the operator by putting parts of the model into torch_executed_ops and report it, or "
        "compile with check='accept'"
    )
