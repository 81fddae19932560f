"""An entry of the zoo compiled, called on fresh inputs here and in a new process, and compared."""

from __future__ import annotations

import copy
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

import portrt
from zoo.registry import Entry

RUN = Path(__file__).parents[1] / "roundtrip" / "run.py"


class Fallbacks(logging.Handler):
    """The nodes that the last plan left in PyTorch: [node, operator, reason]."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.nodes: list[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("%d blocks of"):
            self.nodes = []
        elif record.msg.startswith("in PyTorch:"):
            arguments = record.args if isinstance(record.args, tuple) else ()
            self.nodes.append([str(argument) for argument in arguments])


def compile_entry(
    entry: Entry, *, dynamic: bool, engines: tuple[str, ...] = ("onnxruntime",)
) -> tuple[Any, list[list[str]]]:
    """The compiled program, and the nodes that stay in PyTorch, each with its reason."""
    torch.manual_seed(1)
    arguments = entry.inputs(**entry.best())
    handler, logger = Fallbacks(), logging.getLogger("portrt.compiler.partition.cut")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        program = portrt.compile(
            entry.model,
            arg_inputs=(),
            kwarg_inputs=arguments,
            dynamic_shapes=entry.dynamic_shapes(arguments) if dynamic else None,
            engines=engines,
            output_format="exported_program",
        )
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return program, handler.nodes


def fresh_calls(entry: Entry, *, dynamic: bool) -> list[dict[str, Any]]:
    """Arguments that no compilation saw, of other sizes too where they may vary."""
    torch.manual_seed(2)
    sizes = [entry.best()] * 3 + (entry.other_sizes() if dynamic else [])
    return [entry.inputs(**item) for item in sizes]


def engine_count(program: Any) -> int:
    target = torch.ops.portrt.execute_engine.default
    return sum(
        node.target is target
        for module in program.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
    )


def results(module: Any, calls: Sequence[dict[str, Any]]) -> list[Any]:
    """What a module gives, call by call; it may change state of its own, but not the arguments."""
    with torch.no_grad():
        return [module(**copy.deepcopy(arguments)) for arguments in calls]


def eager_results(entry: Entry, calls: Sequence[dict[str, Any]]) -> list[Any]:
    """The oracle: a copy of the model, so that state that calls change starts as it was."""
    return results(copy.deepcopy(entry.model), calls)


def results_in_new_process(
    programs: Sequence[Any], calls: Sequence[list[dict[str, Any]]], needs: list[str], folder: Path
) -> list[list[Any]]:
    """Save each program with torch, and call it where nothing was imported but torch and `needs`.

    No engine may fall back to PyTorch there.

    Raises:
        RuntimeError: Loading or a call failed.
    """
    jobs = []
    for index, (program, arguments) in enumerate(zip(programs, calls, strict=True)):
        files = {name: folder / f"{name}_{index}.pt2" for name in ("file", "inputs", "outputs")}
        torch.export.save(program, files["file"])
        torch.save([((), item) for item in arguments], files["inputs"])
        jobs.append({**{k: str(v) for k, v in files.items()}, "how": "run", "needs": needs})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, str(RUN), str(folder / "jobs.json")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(RUN.parents[1]), *sys.path]),
            "PORTRT_FALLBACK": "error",
        },
    )
    if done.returncode:
        raise RuntimeError(f"the new process failed: {done.stderr[-2000:]}")
    errors = [error for error in json.loads((folder / "jobs.out").read_text()) if error]
    if errors:
        raise RuntimeError(f"the new process failed: {errors[0]}")
    loaded = [torch.load(job["outputs"], weights_only=False) for job in jobs]
    return [[result for result, _, _ in outputs] for outputs in loaded]


def modules_needed(value: Any) -> list[str]:
    """Where the classes of a result's containers are defined, and operators of the tests' own."""
    found = {"custom_ops"} if "custom_ops" in sys.modules else set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (dict, list, tuple)):
            waiting += list(item.values() if isinstance(item, dict) else item)
            if type(item).__module__ != "builtins":
                found.add(type(item).__module__)
    return sorted(found)


def largest_error(found: Sequence[Any], wanted: Sequence[Any]) -> tuple[float, float]:
    """Largest absolute difference, and the largest one relative to its tensor's largest number.

    Raises:
        AssertionError: Structures, shapes or dtypes differ, or whole numbers do.
    """
    absolute = relative = 0.0
    for one, other in zip(found, wanted, strict=True):
        leaves, tree = pytree.tree_flatten(one)
        expected, expected_tree = pytree.tree_flatten(other)
        assert tree == expected_tree, f"the structure is {tree}, in eager {expected_tree}"
        for got, want in zip(leaves, expected, strict=True):
            if not isinstance(want, torch.Tensor):
                assert got == want, f"{got} instead of {want}"
                continue
            assert got.shape == want.shape, f"{got.shape} instead of {want.shape}"
            assert got.dtype == want.dtype, f"{got.dtype} instead of {want.dtype}"
            if want.is_floating_point() or want.is_complex():
                gap, scale = _gap(got, want)
                absolute = max(absolute, gap)
                relative = max(relative, gap / scale if scale else gap)
            else:
                assert torch.equal(got, want), "whole numbers differ"
    return absolute, relative


def _gap(got: torch.Tensor, want: torch.Tensor) -> tuple[float, float]:
    if not want.numel():
        return 0.0, 0.0
    got, want = got.detach(), want.detach()
    same = (got == want) | (got.isnan() & want.isnan())
    gap = torch.where(same, 0.0, (got - want).abs().double()).max()
    assert not gap.isnan(), "NaN in one of the two"
    finite = want[torch.isfinite(want)].abs()
    return float(gap), float(finite.max()) if finite.numel() else 0.0
