"""Runs the engine builder in a process of its own: a crash there is an error message here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from portrt.compiler.backends.tensorrt.progress import BuilderProgress
from portrt.compiler.convert import WEIGHTS_LOCATION
from portrt.errors import BuildError
from portrt.progress import step_bar

WORKER = Path(__file__).parent / "worker" / "build_engine.py"
_LOG_LINES = 12
_LOOK_S = 0.25
_LOG_BYTES = 1 << 16
_LINE_CHARS = 500
_RESULT_KEYS = frozenset({"version", "flags", "layers", "os", "arch"})


@dataclass(frozen=True)
class Built:
    """An engine and what the worker said of it."""

    data: bytes
    result: Mapping[str, Any]


class ParserRefusal(BuildError):  # noqa: N818  (it is a BuildError)
    """The builder's ONNX parser does not take the model."""


def build_in_process(
    job: Mapping[str, Any],
    onnx: bytes,
    image: torch.Tensor | None,
    *,
    what: str,
    python: str | None,
    timeout_s: float,
) -> Built:
    """Build one engine in a worker process.

    Args:
        job: As worker/build_engine.py describes it, without the paths; "install" is the command
            to name where the bindings are missing.
        onnx: The model.
        image: The weights image that the model refers to, if it does.
        what: Backend and block, for messages.
        python: Interpreter to run the worker with; None is this one.
        timeout_s: Seconds after which the worker is killed.

    Raises:
        ParserRefusal: The builder's ONNX parser refused the model.
        BuildError: The builder refused, crashed, was killed or took too long. The message has the
            last lines of its log.
    """
    with tempfile.TemporaryDirectory(prefix="portrt-build-") as folder:
        workdir = Path(folder)
        (workdir / "model.onnx").write_bytes(onnx)
        if image is not None:
            image.numpy().tofile(workdir / WEIGHTS_LOCATION)
        paths = {
            "onnx": str(workdir / "model.onnx"),
            "engine": str(workdir / "engine"),
            "result": str(workdir / "result.json"),
            "progress": str(workdir / "progress"),
        }
        (workdir / "job.json").write_text(json.dumps({**job, **paths}), encoding="utf-8")
        code = _run(workdir, what, python or sys.executable, timeout_s)
        result = _result(workdir, what, code, str(job.get("install", "install them")), onnx)
        return Built((workdir / "engine").read_bytes(), result)


def _run(workdir: Path, what: str, python: str, timeout_s: float) -> int:
    """Exit code of the worker. Neither it nor a process that it started is left running."""
    with (workdir / "log").open("wb") as log:
        try:
            process = subprocess.Popen(
                [python, str(WORKER), str(workdir / "job.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # a group of its own, to be ended as a whole
            )
        except OSError as err:
            raise BuildError(
                f"the engine builder of {what} cannot be started with {python}: {err}",
                "a Python interpreter that has the TensorRT bindings",
                "correct builder_python",
            ) from err
        try:
            return _wait(process, workdir, what, timeout_s)
        except subprocess.TimeoutExpired as err:
            raise BuildError(
                f"the engine builder of {what} was stopped after {timeout_s:g} s.{_log(workdir)}",
                "a build within build_timeout_s",
                "give a larger build_timeout_s, or a smaller model",
            ) from err
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], workdir: Path, what: str, timeout_s: float) -> int:
    """Exit code of the worker; meanwhile its progress is told.

    Raises:
        subprocess.TimeoutExpired: It takes too long.
    """
    end = time.monotonic() + timeout_s
    with step_bar(what) as show:
        progress = BuilderProgress(workdir / "progress", what, show)
        while True:
            left = end - time.monotonic()
            try:
                code = process.wait(timeout=max(0.0, min(left, _LOOK_S)))
            except subprocess.TimeoutExpired:
                progress.look()
                if left <= 0:
                    raise
            else:
                progress.look()
                return code


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker's group: `builder_python` may be a script that starts the interpreter."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()


def _result(workdir: Path, what: str, code: int, install: str, onnx: bytes) -> Mapping[str, Any]:
    result = _read_result(workdir)
    if "error" in result:
        lines = [*result["details"], *_named_nodes(result, onnx)]
        details = "".join(f"\n    {_cut(line)}" for line in lines[-_LOG_LINES:])
        missing = result.get("missing")
        kind = ParserRefusal if result.get("stage") == "parse" else BuildError
        raise kind(
            f"the engine builder of {what} failed: {result['error']}{details}",
            "bindings that can be imported" if missing else "a model that the builder takes",
            f"{install}; `portrt doctor` tells more"
            if missing
            else "name the operator in torch_executed_ops, or leave this engine out",
        )
    if code != 0 or not result or not (workdir / "engine").exists():
        raise BuildError(
            f"the engine builder of {what} {_ending(code)}.{_log(workdir)}",
            "a worker that ends with an engine and a result",
            "run `portrt doctor`; the last lines of its log say where it was",
        )
    return result


def _read_result(workdir: Path) -> dict[str, Any]:
    """What the worker wrote; empty when it is not there, or not what this worker writes."""
    try:
        result = json.loads((workdir / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_error = isinstance(result, dict) and isinstance(result.get("details"), list)
    if is_error and "error" in result:
        return dict(result)
    return dict(result) if isinstance(result, dict) and set(result) >= _RESULT_KEYS else {}


def _named_nodes(result: Mapping[str, Any], onnx: bytes) -> list[str]:
    """The nodes that the parser refuses, as torch.onnx named them.

    It counts them, or says no more than what kind of node it is about.
    """
    found = [result.get(key) for key in ("nodes", "operators")]
    indices, operators = (item if isinstance(item, list) else [] for item in found)
    if not indices and not operators:
        return []
    import onnx as onnx_library

    nodes = onnx_library.load_from_string(onnx).graph.node
    known = [nodes[i] for i in indices if isinstance(i, int) and 0 <= i < len(nodes)]
    known += [node for node in nodes if node.op_type in operators]
    return [f"it is about {node.name} ({node.op_type})" for node in known]


def _ending(code: int) -> str:
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code} and no result"


def _log(workdir: Path) -> str:
    """The end of the worker's log; of a log of any size, only the end is read."""
    with (workdir / "log").open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
        text = log.read().decode(errors="replace")
    lines = text.splitlines()[-_LOG_LINES:]
    if not lines:
        return " Its log is empty."
    return " Last lines of its log:" + "".join(f"\n    {_cut(line)}" for line in lines)


def _cut(line: Any) -> str:
    text = str(line)
    return text if len(text) <= _LINE_CHARS else f"{text[:_LINE_CHARS]}..."
