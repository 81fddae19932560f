"""What the tests share: each model is compiled once, and new processes run scripts."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models import CASES, Case
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

TESTS = Path(__file__).parent


def assert_same(got: Any, want: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Same structure, types, dtypes, shapes and numbers; NaN equals NaN."""
    got_leaves, got_tree = pytree.tree_flatten(got)
    want_leaves, want_tree = pytree.tree_flatten(want)
    assert got_tree == want_tree
    for one, other in zip(got_leaves, want_leaves, strict=True):
        assert type(one) is type(other) or isinstance(other, torch.Tensor)
        if isinstance(other, torch.Tensor):
            assert isinstance(one, torch.Tensor)
            torch.testing.assert_close(one, other.detach(), rtol=rtol, atol=atol, equal_nan=True)
        else:
            assert one == other


def call(module: Callable[..., Any], case: Case) -> list[Any]:
    """Results of all calls of a case, each with its arguments as the call left them."""
    results = []
    for args, kwargs in case.arguments():
        args, kwargs = copy.deepcopy((args, kwargs))
        torch.manual_seed(7)  # of models that draw random numbers
        results.append((module(*args, **kwargs), args, kwargs))
    return results


def assert_matches_eager(results: list[Any], case: Case) -> None:
    """`results` of `call` are those of the model in eager PyTorch."""
    with torch.no_grad():
        wanted = call(case.model(), case)
    assert_same(results, wanted, case.rtol, case.atol)


class Compiled:
    """Programs of the cases, each compiled once in a session and saved by plain torch.

    Attributes:
        cache: The cache folder that they were compiled with.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: dict[str, ExportedProgram] = {}
        self.cache = folder / "cache"

    def first(self, name: str) -> ExportedProgram:
        """The program as it was compiled, not to be called."""
        if name not in self._programs:
            self._programs[name] = CASES[name].compile(cache_dir=self.cache)
        return self._programs[name]

    def program(self, name: str) -> ExportedProgram:
        """The program; one from the cache where calls would change it."""
        first = self.first(name)
        if first.graph_signature.buffers_to_mutate:
            program: ExportedProgram = CASES[name].compile(cache_dir=self.cache)
            return program
        return first

    def file(self, name: str) -> Path:
        path = self._folder / f"{name}.pt2"
        if not path.exists():
            torch.export.save(self.program(name), path)
        return path


def run_script(
    script: Path | str, *arguments: str, path: tuple[Path, ...] = (), timeout_s: float = 900
) -> str:
    """Run a Python file, or a line of code, in a new process; its standard output.

    Args:
        script: A path, or source text.
        arguments: For sys.argv.
        path: Folders that the process can import from, beside what is installed.
        timeout_s: Time limit, for what hangs: a busy machine is slow.
    """
    start = [str(script)] if isinstance(script, Path) else ["-c", script]
    done = subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def run_jobs(script: Path, jobs: list[dict[str, Any]], folder: Path) -> list[str]:
    """Run a script of tests/roundtrip on jobs in one new process; the error of each job, or ""."""
    description = folder / f"{script.stem}_{len(list(folder.iterdir()))}.json"
    description.write_text(json.dumps(jobs))
    needs_tests = any(job.get("needs") for job in jobs) or script.stem == "transform"
    run_script(script, str(description), path=(TESTS,) if needs_tests else ())
    errors: list[str] = json.loads(description.with_suffix(".out").read_text())
    return errors
