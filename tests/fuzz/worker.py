"""Compiles graphs, or loads and runs files, in a process that may crash without harm.

A line of JSON on standard input names a job's file, a line on standard output its result's.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
LIMIT_S = 900.0  # of a job, on a machine that does much else


class CrashError(Exception):
    """The process ended in a job."""


class Worker:
    """A process that takes jobs until it is closed; started anew after a crash."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run a job.

        Raises:
            CrashError: The process ended, or does not answer.
        """
        import torch

        path = Path(self._folder.name) / "job.pt"
        torch.save(job, path)
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        answers, _, _ = select.select([process.stdout], [], [], LIMIT_S)
        if not answers:
            process.kill()
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self._process = None
            raise CrashError(f"the process ended with {code}")
        return torch.load(json.loads(line), weights_only=False)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            env = {**os.environ, "PORTRT_CACHE_DIR": "off", "OMP_NUM_THREADS": "1"}
            paths = [str(TESTS), env.get("PYTHONPATH", "")]
            env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fuzz.worker", self._role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=env,
            )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        self._folder.cleanup()


def compile_graph(job: dict[str, Any]) -> dict[str, Any]:
    """Compile the graph of a job and save it to the job's path."""
    import portrt
    from portrt.errors import CaptureError

    graph = job["graph"]
    module = graph.module()
    warned = _Texts()
    logger = logging.getLogger("portrt.compiler.sizes.refused_sizes")
    logger.addHandler(warned)
    try:
        program = portrt.compile(
            module,
            inputs=list(graph.calls[0]),
            dynamic_shapes=graph.dynamic_shapes(),
            engines="onnxruntime",
            min_block_size=1,
            check="off",
            cache_dir="off",
            output_format="exported_program",
        )
    except CaptureError as err:
        return {"refused": _text(err)}
    except Exception as err:
        return {"error": _text(err)}
    finally:
        logger.removeHandler(warned)
    portrt.save(program, job["path"])
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    calls = [node for node in nodes if "execute_engine" in str(node.target)]
    left = [
        str(node.target)
        for node in nodes
        if node not in calls and getattr(node.target, "__module__", "") != "_operator"
    ]
    return {"engines": len(calls), "left": left, "refuses": bool(warned.texts)}


class _Texts(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def run_file(job: dict[str, Any]) -> dict[str, Any]:
    """Load the file of a job and run it on each of the job's calls."""
    import torch

    try:
        module = torch.export.load(job["path"]).module()
    except Exception as err:
        return {"error": _text(err)}
    results: list[Any] = []
    for call in job["calls"]:
        try:
            with torch.no_grad():
                results.append([value.clone() for value in module(*call)])
        except Exception as err:
            results.append(_text(err))
    return {"results": results}


def run_captured(job: dict[str, Any]) -> dict[str, Any]:
    """Run what torch.export captures, without portrt, on each of the job's calls."""
    import torch

    graph = job["graph"]
    captured = torch.export.export(
        graph.module(), graph.calls[0], dynamic_shapes=graph.dynamic_shapes()
    )
    module = captured.module()
    results: list[Any] = []
    for call in graph.calls:
        try:
            with torch.no_grad():
                results.append([value.clone() for value in module(*call)])
        except Exception as err:
            results.append(_text(err))
    return {"results": results}


def _text(err: BaseException) -> str:
    cause = f" <- {_text(err.__cause__)}" if err.__cause__ is not None else ""
    lines = str(err).strip().splitlines()
    return f"{type(err).__name__}: {' '.join(lines[:3])[:400] if lines else ''}{cause}"


ROLES = {"compile": compile_graph, "run": run_file, "captured": run_captured}


def main(role: str) -> None:
    import torch

    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    gc.set_threshold(50_000, 20, 100)  # a quarter of a compilation is collections otherwise
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        path = json.loads(line)
        job = torch.load(path, weights_only=False)
        started = time.perf_counter()
        try:
            reply = ROLES[job.get("role", role)](job)
        except Exception as err:
            reply = {"error": _text(err)}
        reply["seconds"] = time.perf_counter() - started
        torch.save(reply, f"{path}.out")
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(f"{path}.out"), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
