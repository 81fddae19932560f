"""The worker process: whatever becomes of it, the build ends with an engine or a reason."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import io
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from portrt.compiler.backends.tensorrt import process
from portrt.compiler.backends.tensorrt.process import WORKER, build_in_process
from portrt.compiler.backends.tensorrt.progress import BuilderProgress
from portrt.compiler.backends.tensorrt.worker import build_engine
from portrt.compiler.convert import WEIGHTS_LOCATION
from portrt.errors import BuildError
from portrt.progress import step_bar

Interpreter = Callable[[str], str]

GOOD = """
    open(job["engine"], "wb").write(b"plan")
    result = {"version": "1", "flags": [], "layers": 1, "os": "linux", "arch": "x"}
    json.dump(result, open(job["result"], "w"))
"""


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made: empty again afterwards, and no worker left."""
    room = tmp_path / "temporary"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    yield room
    assert list(room.iterdir()) == []
    for path in tmp_path.glob("*.pid"):
        assert _is_gone(int(path.read_text())), path.name


def _is_gone(pid: int) -> bool:
    """It was killed already; the kernel may be slow to end it."""
    for _ in range(6000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # ended; whoever adopted it has not asked how
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    """Makes an executable that stands in for Python: it gets the worker and the job file."""

    def make(body: str) -> str:
        path = tmp_path / "python"
        head = f"""\
            #!{sys.executable}
            import json, os, signal, subprocess, sys, time
            open({str(tmp_path / "worker.pid")!r}, "w").write(str(os.getpid()))
            worker, job_path = sys.argv[1:]
            job = json.load(open(job_path))
            """
        path.write_text(textwrap.dedent(head) + textwrap.dedent(body))
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: when the worker makes it, the time of the build is over, and no sooner."""
    path = tmp_path / "over"
    told: list[float] = []

    def clock() -> float:
        told.append(1e9 if told and path.exists() else 0.0)
        return told[-1]

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=clock))
    return path


def build(python: str | None, timeout_s: float = 600.0, **job: Any) -> Any:
    return build_in_process(
        job, b"model", None, what="block_0 for tensorrt_rtx", python=python, timeout_s=timeout_s
    )


def refusal(python: str, timeout_s: float = 600.0, **job: Any) -> BuildError:
    with pytest.raises(BuildError, match="engine builder of block_0 for tensorrt_rtx") as caught:
        build(python, timeout_s, **job)
    assert caught.value.expected
    assert caught.value.remedy
    assert len(str(caught.value)) < 10_000
    return caught.value


def test_the_worker_gets_job_model_and_weights(interpreter: Interpreter) -> None:
    python = interpreter(
        """
        folder = os.path.dirname(job["onnx"])
        assert os.path.basename(worker) == "build_engine.py"
        assert open(job["onnx"], "rb").read() == b"model"
        weights = open(os.path.join(folder, job["location"]), "rb").read()
        open(job["engine"], "wb").write(weights)
        result = {"version": "1", "flags": [], "layers": 1, "os": "linux", "arch": "x"}
        json.dump(result, open(job["result"], "w"))
        """
    )
    image = torch.arange(5, dtype=torch.uint8)
    built = build_in_process(
        {"location": WEIGHTS_LOCATION}, b"model", image, what="it", python=python, timeout_s=600
    )
    assert built.data == bytes(range(5))
    assert built.result["layers"] == 1


ENDINGS = {
    "abort": ("os.abort()", "was killed by SIGABRT"),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
    "SIGSEGV": ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
    "realtime signal": ("os.kill(os.getpid(), 40)", "was killed by signal 40"),
    "exit 3": ("sys.exit(3)", "ended with exit code 3 and no result"),
    "exit 0": ("sys.exit(0)", "ended with exit code 0 and no result"),
    "raises": ("raise MemoryError('too big')", "ended with exit code 1 and no result"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_worker_without_a_result_shows_how_it_ended_and_its_log(
    interpreter: Interpreter, name: str
) -> None:
    body, ending = ENDINGS[name]
    said = refusal(interpreter(f"print('tactic 7', flush=True)\n{body}")).happened
    assert f"{ending}. Last lines of its log:" in said
    assert "\n    tactic 7" in said
    assert name != "raises" or "\n    MemoryError: too big" in said


def test_a_worker_that_says_nothing_is_said_to(interpreter: Interpreter) -> None:
    assert refusal(interpreter("sys.exit(4)")).happened.endswith("Its log is empty.")


def test_an_engine_without_a_result_does_not_count(interpreter: Interpreter) -> None:
    python = interpreter('open(job["engine"], "wb").write(b"half")')
    assert "ended with exit code 0 and no result" in refusal(python).happened


RESULTS = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    '{"version": "1"}',
    '{"error": "x"}',
    '{"error": "x", "details": 1}',
]


@pytest.mark.parametrize("text", RESULTS)
def test_a_result_that_is_none_does_not_count(interpreter: Interpreter, text: str) -> None:
    python = interpreter(f"{textwrap.dedent(GOOD)}\nopen(job['result'], 'w').write({text!r})")
    assert "ended with exit code 0 and no result" in refusal(python).happened


def test_a_result_without_an_engine_does_not_count(interpreter: Interpreter) -> None:
    python = interpreter(f"{textwrap.dedent(GOOD)}\nos.unlink(job['engine'])")
    assert "ended with exit code 0 and no result" in refusal(python).happened


def test_a_refusal_has_the_builders_words(interpreter: Interpreter) -> None:
    python = interpreter(
        """
        details = ["line %d" % number for number in range(30)] + ["x" * 5000]
        json.dump({"error": "no kernel", "details": details}, open(job["result"], "w"))
        sys.exit(1)
        """
    )
    error = refusal(python)
    assert "failed: no kernel\n" in error.happened
    assert "\n    line 29\n    xxx" in error.happened
    assert "line 5\n" not in error.happened
    assert "torch_executed_ops" in error.remedy


def test_ten_megabytes_of_log_show_their_end(interpreter: Interpreter) -> None:
    python = interpreter(
        """
        sys.stdout.write("".join("line %d\\n" % number for number in range(1_100_000)))
        sys.stdout.write("y" * 100_000 + "\\n\\xff the end\\n")
        sys.stdout.flush()
        os.abort()
        """
    )
    said = refusal(python).happened
    assert "the end" in said
    assert len(said) < 8000


HANGS = """
    open({ready!r}, "w").close()
    time.sleep(36000)
"""


def hangs(ready: Path) -> str:
    """A worker makes this file, and never ends."""
    return textwrap.dedent(HANGS.format(ready=str(ready)))


def test_a_worker_that_hangs_is_stopped(
    interpreter: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its time is over, and not before: the clock goes on when the worker hangs."""
    ready, told = tmp_path / "ready", list[float]()
    times = iter([1.0, 1.99, 2.0])

    def clock() -> float:
        if not told:
            told.append(0.0)  # the build begins
        elif ready.exists():
            told.append(next(times))
        return told[-1]

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=clock))
    python = interpreter(f"print('at tactic 7', flush=True)\n{hangs(ready)}")
    error = refusal(python, timeout_s=2.0)
    assert "was stopped after 2 s." in error.happened
    assert "\n    at tactic 7" in error.happened
    assert "build_timeout_s" in error.remedy
    assert told == [0.0, 1.0, 1.99, 2.0]


def test_a_worker_that_ignores_polite_signals_is_stopped(
    interpreter: Interpreter, over: Path
) -> None:
    ignores = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    """
    python = interpreter(textwrap.dedent(ignores) + hangs(over))
    assert "was stopped after 2 s." in refusal(python, timeout_s=2.0).happened


CHILD = """
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(36000)"])
    open({pid!r}, "w").write(str(child.pid))
"""


@pytest.mark.parametrize("ending", ["hangs", "os.abort()", "sys.exit(1)"])
def test_what_the_worker_started_ends_with_it(
    interpreter: Interpreter, tmp_path: Path, ending: str, over: Path
) -> None:
    """`builder_python` may be a script that starts the interpreter of a container."""
    child = textwrap.dedent(CHILD.format(pid=str(tmp_path / "child.pid")))
    refusal(interpreter(child + (hangs(over) if ending == "hangs" else ending)), timeout_s=2.0)
    assert (tmp_path / "child.pid").exists()  # that it ended is checked by the fixture


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable", "not a program"])
def test_a_python_that_cannot_be_started_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "no-python"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("")
        path.chmod(0o755 if kind == "not a program" else 0o644)
    error = refusal(str(path))
    assert f"cannot be started with {path}: " in error.happened
    assert error.remedy == "correct builder_python"


def test_progress_is_told_while_the_worker_runs(
    interpreter: Interpreter,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker goes on only when its first steps were shown. Each phase is logged once; half a
    line waits for its other half, and what is no progress is passed over."""
    shown: list[tuple[str, int, int]] = []
    go, half = tmp_path / "go", tmp_path / "half"
    real = BuilderProgress.poll

    def poll(progress: Any) -> None:
        """The worker writes the other half of its line once this saw the first one."""
        is_half = progress._path.exists() and progress._path.read_text().endswith("Wei")
        real(progress)
        if is_half:
            half.touch()

    monkeypatch.setattr(BuilderProgress, "poll", poll)

    @contextlib.contextmanager
    def bar(what: str) -> Iterator[Any]:
        assert what == "block_0 for tensorrt_rtx"

        def show(phase: str, step: int, steps: int) -> None:
            shown.append((phase, step, steps))
            if len(shown) == 2:
                go.touch()

        yield show

    monkeypatch.setattr(process, "step_bar", bar)
    python = interpreter(
        f"""
        out = open(job["progress"], "a", buffering=1)
        for step in (1, 2):
            print(json.dumps({{"phase": "Tactics", "step": step, "steps": 2}}), file=out)
        while not os.path.exists({str(go)!r}):
            time.sleep(0.05)
        for words in ("{{", "[]", "null", '{{"phase": 1, "step": 1, "steps": 1}}', '{{}}'):
            print(words, file=out)
        out.write('{{"phase": "Wei')
        out.flush()
        while not os.path.exists({str(half)!r}):
            time.sleep(0.05)
        print('ghts", "step": 1, "steps": 9}}', file=out)
        """
        + textwrap.indent(GOOD, " " * 4)
    )
    with caplog.at_level("INFO", "portrt"):
        assert build(python).data == b"plan"
    assert shown == [("Tactics", 1, 2), ("Tactics", 2, 2), ("Weights", 1, 9)]
    assert caplog.messages == [
        "block_0 for tensorrt_rtx: Tactics (2 steps)",
        "block_0 for tensorrt_rtx: Weights (9 steps)",
    ]


def test_the_bar_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with step_bar("block_0 [x] for tensorrt") as show:
            show("Tactics", 1, 2)
        assert ("block_0 [x] for tensorrt: Tactics" in stream.getvalue()) is stream.isatty()


def test_an_interrupt_kills_the_worker(tmp_path: Path, interpreter: Interpreter) -> None:
    """Ctrl-C in the terminal of a build: SIGINT to this process alone is the harder case."""
    python = interpreter("time.sleep(36000)")
    code = f"""
        import signal, tempfile
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
        tempfile.tempdir = {str(tmp_path / "temporary")!r}
        from portrt.compiler.backends.tensorrt import process as build_process
        real = build_process._wait
        def wait(*args):
            print("waiting", flush=True)
            return real(*args)
        build_process._wait = wait
        try:
            build_process.build_in_process(
                {{}}, b"model", None, what="it", python={python!r}, timeout_s=36000
            )
        except KeyboardInterrupt:
            print("interrupted")
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = tmp_path / "worker.pid"
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "waiting\n"
        while not (pid.exists() and pid.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert said == "interrupted\n"
    assert process.returncode == 0


def test_a_missing_module_names_the_install_command() -> None:
    """The real worker, with bindings that are not there."""
    error = refusal(sys.executable, module="no_such_bindings", install="pip install some-bindings")
    assert "no_such_bindings cannot be imported by" in error.happened
    assert "ModuleNotFoundError: No module named 'no_such_bindings'" in error.happened
    assert error.remedy.startswith("pip install some-bindings")


def test_the_worker_is_python_38_and_stands_alone() -> None:
    tree = ast.parse(WORKER.read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported <= {"ctypes", "importlib", "json", "os", "platform", "sys", "time"}


def test_the_worker_uses_nothing_newer_than_python_38() -> None:
    """What the grammar does not show: methods of str and dict that came with 3.9."""
    text = WORKER.read_text()
    for newer in ("removeprefix", "removesuffix", "|=", "match ", "zoneinfo"):
        assert newer not in text.replace("bits |= 1", "")


class _Driver:
    """Both native libraries of NVIDIA's driver, as ctypes gives them."""

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.ended = 0

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802  (NVIDIA's name)
        number._obj.value = 12040
        return self.error

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.error

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:  # noqa: N802
        text.value = b"580.95.05"
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.ended += 1
        return 0


def test_the_worker_tells_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = _Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert build_engine.driver_facts() == {"driver": "580.95.05", "driver_cuda": "12.4"}
    assert driver.ended == 1


@pytest.mark.parametrize("why", ["none", "failing", "of another time"])
def test_without_a_driver_the_worker_tells_none(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        if why == "none":
            raise OSError(f"{name}: cannot open shared object file")
        return _Driver(error=100) if why == "failing" else object()

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert build_engine.driver_facts() == {}
