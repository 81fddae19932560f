"""Opens changed files by every public function that takes a path; run as a process.

`python hostile_worker.py FOLDER FIRST LAST` writes each seed to FOLDER/FIRST/seed before its work,
so that a crash shows which one it was, and writes a line of JSON for each fault, and the counts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import sys
import time
import typing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hostile_mutations import MARKER, SECRET, mutated
from torch._export.serde import schema, serialize

import portrt
from portrt import files
from portrt.errors import PortrtError
from portrt.runtime import policy

LIMIT_BYTES = 12 << 30
LIMIT_SECONDS = 120
SECRET_BYTES = b"TOPSECRET-0123456789abcdefghijklmnopqrstuvwxyz!!"
# What no file may make Python do; opening files for reading is judged by their path.
FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")


class TooLongError(BaseException):
    """More time than any file may take."""


@contextlib.contextmanager
def _watched(folder: Path, faults: list[str]) -> Iterator[None]:
    """Note what is executed, and files that are opened outside of the folder by name."""
    outside = ("/etc/passwd", str(folder / SECRET))
    watching = [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not watching[0]:
            return
        if event in FORBIDDEN:
            faults.append(f"{event}{args!r:.100}")
        elif event == "open" and isinstance(args[0], str) and args[0].startswith(outside):
            faults.append(f"opened {args[0]}")
        elif event == "import" and args[0] in ("this", "antigravity", "evil"):
            faults.append(f"imported {args[0]}")

    sys.addaudithook(hook)
    try:
        yield
    finally:
        watching[0] = False


def _inputs(program: torch.export.ExportedProgram) -> Any:
    """Ones of the sizes of the example inputs."""
    given = program.example_inputs or ((), {})
    return torch.utils._pytree.tree_map_only(torch.Tensor, _ones, given)


def _ones(tensor: torch.Tensor) -> torch.Tensor:
    return torch.ones([int(size) for size in tensor.shape], dtype=tensor.dtype)


class Worker:
    """Tries files one after another at one path.

    Args:
        folder: Where `base_*.pt2` are, and where it writes.
    """

    def __init__(self, folder: Path) -> None:
        self.bases = [path.read_bytes() for path in sorted(folder.glob("base_*.pt2"))]
        self.path, self.output = Path("a.pt2").resolve(), Path("out").resolve()
        self.marker = Path(MARKER)
        self.counts: Counter[str] = Counter()
        self.noted: list[str] = []

    def try_seed(self, seed: int) -> list[str]:
        """Return what is wrong with how this file is taken."""
        kind, data = mutated(self.bases, seed)
        self.path.unlink(missing_ok=True)  # a program may be mapped from the old one
        self.path.write_bytes(data)
        self.noted.clear()
        faults: list[str] = []
        signal.alarm(LIMIT_SECONDS)
        try:
            for name, step in self._steps(seed):
                if not self._step(name, step, faults):
                    break
        except TooLongError:
            faults.append(f"takes more than {LIMIT_SECONDS} s")
        finally:
            signal.alarm(0)
        if self.marker.exists():
            faults.append("its code was run")
            self.marker.unlink()
        return [f"{kind}: {fault}" for fault in (*faults, *self.noted)]

    def _step(self, name: str, step: Callable[[], Any], faults: list[str]) -> bool:
        """Return whether the other steps are worth trying."""
        try:
            step()
            self.counts[f"{name} accepted"] += 1
        except PortrtError as err:
            self.counts[f"{name} refused"] += 1
            if not (err.happened and err.expected and err.remedy):
                faults.append(f"{name}: an error without a reason")
            return name != "inspect"
        except Exception as err:
            if name == "call":  # of operators that are not in an engine
                self.counts["call failed"] += 1
                return True
            faults.append(f"{name}: {type(err).__module__}.{type(err).__name__}: {err!s:.200}")
        return True

    def _steps(self, seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
        path, output = self.path, self.output
        what = ("plan", "onnx", "source", "weights")[seed % 4]
        yield "inspect", lambda: json.dumps(portrt.inspect(path).to_json(), allow_nan=False)
        yield "check", lambda: files.check(path)
        yield "strip", lambda: files.strip(path, source=True, output=output, force=True)
        yield "extract", lambda: files.extract(path, what, output)
        loaded: list[Any] = []
        if seed % 8 == 0:  # the others, as part of the next step
            yield "load only", lambda: portrt.load(path, verify=True)
        yield "load", lambda: loaded.append(portrt.load(path, output_format="module"))
        if loaded:
            yield "call", lambda: self._call(loaded[0])
            yield "verify", lambda: files.verify(path)
        if seed % 16 == 1:
            yield "add_engine", lambda: files.add_engine(path, "onnxruntime", output=output)
        elif seed % 16 == 2:
            yield "profile", lambda: files.profile(path, calls=1)

    def _call(self, module: Any) -> None:
        args, kwargs = _inputs(module.meta["portrt_program"])
        with torch.no_grad(), policy(rebuild="never"):
            found = module(*args, **kwargs)
        for leaf in torch.utils._pytree.tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and leaf.numel() < 1 << 20:
                data = leaf.contiguous().flatten().view(torch.uint8).numpy().tobytes()
                if SECRET_BYTES[:16] in data:
                    self.noted.append("a file came out of the program")


def _report(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(folder: str, first: int, last: int) -> None:
    """Try the seeds from `first` up to `last`."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # torch's reader evaluates them for each object: a third of the time of a file.
    hints = functools.cache(lambda kind: typing.get_type_hints(kind, vars(schema)))
    serialize.typing = SimpleNamespace(
        **{**vars(typing), "get_type_hints": lambda kind, globalns: hints(kind)}
    )

    def too_long(*_: Any) -> None:
        raise TooLongError

    signal.signal(signal.SIGALRM, too_long)
    own = Path(folder, str(first)).resolve()
    own.mkdir()
    os.chdir(own)
    Path(SECRET).write_bytes(SECRET_BYTES * 4)
    worker = Worker(own.parent)
    started = time.perf_counter()
    with _watched(own, worker.noted), open("seed", "w") as progress:
        for seed in range(first, last):
            os.pwrite(progress.fileno(), f"{seed:<12}".encode(), 0)
            for fault in worker.try_seed(seed):
                _report({"seed": seed, "fault": fault})
    seconds = time.perf_counter() - started
    _report({"counts": dict(worker.counts), "seconds": seconds})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
