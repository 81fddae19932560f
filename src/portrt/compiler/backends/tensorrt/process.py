"""Runs the engine builder in a separate process, so that a crash there becomes an error here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from portrt.compiler.backends.child import cut, end_group, ending, last_lines
from portrt.compiler.backends.tensorrt.progress import BuilderProgress
from portrt.compiler.convert import WEIGHTS_LOCATION
from portrt.errors import BuildError
from portrt.format.temp_file import temporary_folder
from portrt.progress import step_bar

WORKER = Path(__file__).parent / "worker" / "build_engine.py"
_LOG_LINES = 12
_POLL_S = 0.25
_RESULT_KEYS = frozenset({"version", "flags", "layers", "os", "arch"})


@dataclass(frozen=True)
class Built:
    """A serialized engine and the worker's result."""

    data: bytes
    result: Mapping[str, Any]


class ParserRefusal(BuildError):  # noqa: N818  (it is a BuildError)
    """The builder's ONNX parser refused the model."""


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
        job: As worker/build_engine.py documents it, without the paths; "install" is the command to
            suggest if the bindings are missing.
        onnx: ModelProto bytes.
        image: The weights image, if the model has external data.
        what: Backend and block, for messages.
        python: Interpreter to run the worker with; None means this one.
        timeout_s: Seconds after which the worker is killed.

    Raises:
        ParserRefusal: The builder's ONNX parser refused the model.
        BuildError: The builder failed, crashed, was killed or took too long. The message has the
            last lines of its log.
    """
    with temporary_folder("portrt-build-") as workdir:
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
    """Run the worker and return its exit code; its process group is killed in any case."""
    with (workdir / "log").open("wb") as log:
        try:
            process = subprocess.Popen(
                [python, str(WORKER), str(workdir / "job.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # a process group that can be killed together
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
                f"the engine builder of {what} was stopped after {timeout_s:g} s."
                f"{last_lines(workdir / 'log')}",
                "a build within build_timeout_s",
                "pass a larger build_timeout_s, or a smaller model",
            ) from err
        finally:
            end_group(process)


def _wait(process: subprocess.Popen[bytes], workdir: Path, what: str, timeout_s: float) -> int:
    """Wait for the worker, reporting its progress, and return its exit code.

    Raises:
        subprocess.TimeoutExpired: The worker takes longer than `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    with step_bar(what) as show:
        progress = BuilderProgress(workdir / "progress", what, show)
        while True:
            left = end - time.monotonic()
            try:
                code = process.wait(timeout=max(0.0, min(left, _POLL_S)))
            except subprocess.TimeoutExpired:
                progress.poll()
                if left <= 0:
                    raise
            else:
                progress.poll()
                return code


def _result(workdir: Path, what: str, code: int, install: str, onnx: bytes) -> Mapping[str, Any]:
    result = _read_result(workdir)
    if "error" in result:
        lines = [*result["details"], *_named_nodes(result, onnx)]
        details = "".join(f"\n    {cut(line)}" for line in lines[-_LOG_LINES:])
        missing = result.get("missing")
        kind = ParserRefusal if result.get("stage") == "parse" else BuildError
        raise kind(
            f"the engine builder of {what} failed: {result['error']}{details}",
            "bindings that can be imported" if missing else "a model that the builder takes",
            f"{install}; see `portrt doctor`"
            if missing
            else "name the operator in torch_executed_ops, or leave this engine out",
        )
    if code != 0 or not result or not (workdir / "engine").exists():
        raise BuildError(
            f"the engine builder of {what} {ending(code)}.{last_lines(workdir / 'log')}",
            "a worker that ends with an engine and a result",
            "run `portrt doctor`; see the last lines of the log",
        )
    return result


def _read_result(workdir: Path) -> dict[str, Any]:
    """Read the worker's result; empty if it is missing or malformed."""
    try:
        result = json.loads((workdir / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_error = isinstance(result, dict) and isinstance(result.get("details"), list)
    if is_error and "error" in result:
        return dict(result)
    return dict(result) if isinstance(result, dict) and set(result) >= _RESULT_KEYS else {}


def _named_nodes(result: Mapping[str, Any], onnx: bytes) -> list[str]:
    """Return a line for each node that the parser refuses, with the name from torch.onnx.

    The parsers report the index of a node, or only its operator type.
    """
    found = [result.get(key) for key in ("nodes", "operators")]
    indices, operators = (item if isinstance(item, list) else [] for item in found)
    if not indices and not operators:
        return []
    import onnx as onnx_library

    nodes = onnx_library.load_from_string(onnx).graph.node
    known = [nodes[i] for i in indices if isinstance(i, int) and 0 <= i < len(nodes)]
    known += [node for node in nodes if node.op_type in operators]
    return [f"refused node: {node.name} ({node.op_type})" for node in known]
