"""Runs the engine builder in a process of its own: a crash there is an error message here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from portrt.convert import WEIGHTS_LOCATION
from portrt.errors import BuildError

WORKER = Path(__file__).parent.parent / "worker" / "build_engine.py"
_LOG_LINES = 12


@dataclass(frozen=True)
class Built:
    """An engine and what the worker said of it."""

    data: bytes
    result: Mapping[str, Any]


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
        job: As worker/build_engine.py describes it, without the paths.
        onnx: The model.
        image: The weights image that the model refers to, if it does.
        what: Backend and block, for messages.
        python: Interpreter to run the worker with; None is this one.
        timeout_s: Seconds after which the worker is killed.

    Raises:
        BuildError: The builder refused, crashed, was killed or took too long. The message has the
            last lines of its log.
    """
    with tempfile.TemporaryDirectory(prefix="portrt-build-") as folder:
        room = Path(folder)
        (room / "model.onnx").write_bytes(onnx)
        if image is not None:
            image.numpy().tofile(room / WEIGHTS_LOCATION)
        paths = {
            "onnx": str(room / "model.onnx"),
            "engine": str(room / "engine"),
            "result": str(room / "result.json"),
        }
        (room / "job.json").write_text(json.dumps({**job, **paths}), encoding="utf-8")
        code = _run(room, what, python or sys.executable, timeout_s)
        result = _result(room, what, code)
        return Built((room / "engine").read_bytes(), result)


def _run(room: Path, what: str, python: str, timeout_s: float) -> int:
    """Exit code of the worker; it is never left running."""
    with (room / "log").open("wb") as log:
        try:
            process = subprocess.Popen(
                [python, str(WORKER), str(room / "job.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as err:
            raise BuildError(
                f"the engine builder of {what} cannot be started with {python}: {err}",
                "a Python interpreter that has the TensorRT bindings",
                "correct builder_python",
            ) from err
        try:
            return process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as err:
            raise BuildError(
                f"the engine builder of {what} was stopped after {timeout_s:g} s.{_log(room)}",
                "a build within build_timeout_s",
                "give a larger build_timeout_s, or a smaller model",
            ) from err
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _result(room: Path, what: str, code: int) -> Mapping[str, Any]:
    path = room / "result.json"
    result: Mapping[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if "error" in result:
        details = "".join(f"\n    {line}" for line in result["details"][-_LOG_LINES:])
        raise BuildError(
            f"the engine builder of {what} failed: {result['error']}{details}",
            "a model that the builder takes",
            "name the operator in torch_executed_ops, or leave this engine out",
        )
    if code != 0 or not result:
        raise BuildError(
            f"the engine builder of {what} {_ending(code)}.{_log(room)}",
            "a worker that ends with a result",
            "run `portrt doctor`; the last lines of its log say where it was",
        )
    return result


def _ending(code: int) -> str:
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code} and no result"


def _log(room: Path) -> str:
    lines = (room / "log").read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return " Last lines of its log:" + "".join(f"\n    {line}" for line in lines) if lines else ""
