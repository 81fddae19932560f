"""Runs a compilation in a child process.

Compiling takes seconds to minutes, changes torch's global state, and starts further processes;
and a package that ends the process that opens it is an error message this way.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from portrt.compiler.backends.child import cut, end_group, ending, last_lines
from portrt.compiler.backends.inductor.cxx import environment
from portrt.errors import BuildError
from portrt.progress import step_bar

# -I: nothing but what this process imports from is imported there.
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from portrt.compiler.backends.inductor.worker import main; main(sys.argv[2])"
)


def compile_in_process(
    job: Mapping[str, Any], workdir: Path, cache: Path, *, what: str, timeout_s: float
) -> Mapping[str, Any]:
    """Run a job of `worker` and return its result.

    Args:
        job: The job; files are added in `workdir`.
        workdir: A private folder, which may already have files that the job names.
        cache: Folder of what Inductor keeps.
        what: Backend and block, for messages.
        timeout_s: Seconds after which the child and its own children are killed.

    Raises:
        BuildError: Inductor refuses the block, or the child crashed or took too long.
    """
    paths = {"package": str(workdir / "package.pt2"), "result": str(workdir / "result.json")}
    (workdir / "job.json").write_text(json.dumps({**job, **paths}), encoding="utf-8")
    command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), str(workdir / "job.json")]
    log = workdir / "log"
    with log.open("wb") as file, step_bar(what):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment(cache),
            cwd=workdir,
            start_new_session=True,  # a process group that can be killed together
        )
        abandon = partial(_abandon, process, workdir)
        atexit.register(abandon)  # a thread in the background may have started it
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as err:
            raise BuildError(
                f"the compilation of {what} was stopped after {timeout_s:g} s.{last_lines(log)}",
                "a build within build_timeout_s",
                "pass a larger build_timeout_s, or a smaller model",
            ) from err
        finally:
            end_group(process)
            atexit.unregister(abandon)
    result = _read(workdir / "result.json")
    if "error" in result:
        details = "".join(f"\n    {cut(line)}" for line in result["details"])
        raise Refusal(
            f"Inductor cannot compile {what}: {cut(result['error'])}{details}",
            "operators and dtypes that Inductor compiles",
            "name the operator in torch_executed_ops, or leave inductor out of engines",
            tuple(result.get("targets", ())),
        )
    if code != 0 or "constants" not in result:
        raise BuildError(
            f"the compilation of {what} {ending(code)}.{last_lines(log)}",
            "a child process that ends with a package and a result",
            "run `portrt doctor`; see the last lines of the log",
        )
    return result


def _abandon(process: subprocess.Popen[bytes], workdir: Path) -> None:
    """End a child when this process ends."""
    end_group(process)
    shutil.rmtree(workdir, ignore_errors=True)


class Refusal(BuildError):  # noqa: N818  (it is a BuildError)
    """Inductor refused the block.

    Attributes:
        targets: Names of the operators that its message names.
    """

    def __init__(
        self, happened: str, expected: str, remedy: str, targets: tuple[str, ...] = ()
    ) -> None:
        super().__init__(happened, expected, remedy)
        self.targets = targets


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
