"""Compile cases, many in one program, and say of each where it runs and whether it is right."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.export import Dim, ExportedProgram

import portrt
from ops.case import LARGEST, SIZES, SMALLEST, TOLERANCES, Case
from portrt import torch_internals
from portrt.targets import backends


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        engine: All of its operators are in the engine.
        reason: Otherwise why not.
        wrong: How its numbers differ from eager's, or what failed; "" where it is right.
    """

    engine: bool
    reason: str = ""
    wrong: str = ""


class _Group(torch.nn.Module):
    """Calls all cases, each with tensors of its own."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.cases = cases

    def forward(self, tensors: list[list[torch.Tensor]]) -> list[tuple[torch.Tensor, ...]]:
        return [case.run(own) for case, own in zip(self.cases, tensors, strict=True)]


def exported(cases: Sequence[Case]) -> ExportedProgram:
    """One program of all cases."""
    shapes = [
        [_dims(index, tensor.sizes) for tensor in case.tensors] for index, case in enumerate(cases)
    ]
    example = [case.make(0) for case in cases]
    with torch_internals.oblivious_to_size_one():
        return torch.export.export(_Group(cases), (example,), dynamic_shapes=(shapes,))


def _dims(index: int, sizes: Sequence[str]) -> dict[int, Any]:
    return {
        axis: Dim(f"{size}{index}", min=SMALLEST[size], max=LARGEST)
        for axis, size in enumerate(sizes)
        if size in SIZES
    }


def judge(cases: Sequence[Case], backend: str = "onnxruntime") -> dict[Case, Outcome]:
    """Compile and run; what is not as it should be is tried again alone, to know whose fault it is.

    With a backend that cannot run here the numbers are not compared.
    """
    if len(cases) == 1:
        return {cases[0]: _judge_one(cases[0], backend)}
    try:
        found = _judge_together(cases, backend)
    except Exception:
        half = len(cases) // 2
        return judge(cases[:half], backend) | judge(cases[half:], backend)
    return {
        case: outcome if outcome.engine and not outcome.wrong else _judge_one(case, backend)
        for case, outcome in found.items()
    }


def _judge_one(case: Case, backend: str) -> Outcome:
    with _reasons() as reasons:
        try:
            (outcome,) = _judge_together([case], backend).values()
        except Exception as err:
            return Outcome(False, wrong=f"{type(err).__name__}: {err}")
    return Outcome(outcome.engine, "; ".join(dict.fromkeys(reasons)), outcome.wrong)


def _judge_together(cases: Sequence[Case], backend: str) -> dict[Case, Outcome]:
    captured = exported(cases)
    program = compiled(captured, backend, strict=len(cases) > 1)
    left = _left_in_pytorch(program, [len(case.run(case.make(0))) for case in cases])
    wrong = _differences(program, cases) if backend == "onnxruntime" else [""] * len(cases)
    return {
        case: Outcome(not names, ", ".join(names), text)
        for case, names, text in zip(cases, left, wrong, strict=True)
    }


def compiled(captured: ExportedProgram, backend: str, *, strict: bool) -> ExportedProgram:
    """With `strict` an engine that fails is an error; else its part stays in PyTorch.

    With it the check at compile is off, too: numbers are compared here, with narrower bounds.
    """
    options: dict[str, Any] = {"min_block_size": 1, "cache_dir": "off"}
    if strict:
        return portrt.compile(
            captured,
            engines=(backend,),
            require_engines=True,
            check="off",
            output_format="exported_program",
            **options,
        )
    with mock.patch.object(backends, "names", lambda: [backend]):  # asked for, but not by name
        return portrt.compile(
            captured,
            check_budget=0.0,  # the rows are compared with eager at several sizes here
            output_format="exported_program",
            **options,
        )


@contextmanager
def _reasons() -> Iterator[list[str]]:
    """What the partitioner says of each node that stays in PyTorch."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("in PyTorch:"):
                found.append(record.getMessage().partition(": ")[2])
            if str(record.msg).endswith("planned again: %s"):
                found.clear()

    logger, listener = logging.getLogger("portrt.compiler.partition.cut"), Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        logger.setLevel(level)
        logger.removeHandler(listener)


def _left_in_pytorch(program: ExportedProgram, counts: Sequence[int]) -> list[list[str]]:
    """For each case the operators outside the engines on the way to its outputs."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    results = iter(output.args[0])
    return [
        sorted({name for _ in range(count) for name in _outside(next(results))}) for count in counts
    ]


def _outside(result: Any) -> set[str]:
    seen, ahead, found = set(), [result], set()
    while ahead:
        node = ahead.pop()
        if not isinstance(node, torch.fx.Node) or node in seen:
            continue
        seen.add(node)
        ahead += node.all_input_nodes
        if node.op != "call_function" or torch_internals.is_symbolic_call(node):
            continue
        if node.target not in (operator.getitem, torch.ops.portrt.execute_engine.default):
            found.add(str(node.target))
    if not any(node.target is torch.ops.portrt.execute_engine.default for node in seen):
        found.add("no engine at all")
    return found


def _differences(program: ExportedProgram, cases: Sequence[Case]) -> list[str]:
    module = program.module()
    wrong = [""] * len(cases)
    for call in range(max(case.calls for case in cases)):
        given = [case.make(call if call < case.calls else 0) for case in cases]
        kept = [[tensor.clone() for tensor in tensors] for tensors in given]
        with torch.no_grad():
            found = module(given)
            for index, case in enumerate(cases):
                wanted = case.run(kept[index])
                if not wrong[index] and case.compares:
                    wrong[index] = difference(case, found[index], wanted)
    return wrong


def difference(case: Case, found: Sequence[Any], wanted: Sequence[torch.Tensor]) -> str:
    """How results differ from eager's; "" where they do not."""
    for got, want in zip(found, wanted, strict=True):
        rtol, atol = TOLERANCES.get(want.dtype, (0.0, 0.0))
        if case.tolerance and want.dtype.is_floating_point:
            rtol, atol = case.tolerance
        try:
            torch.testing.assert_close(got, want, rtol=rtol, atol=atol, equal_nan=True)
        except AssertionError as err:
            return " ".join(str(err).split())
    return ""
