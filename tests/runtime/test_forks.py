"""Forked children: a server that loads, warms up and forks, and forks while threads are at work."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import python

import portrt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no forks")

# A child that hangs is ended by its alarm. `forked` returns the wait statuses: 0 is success.
FORKED = """
import gc, os, signal, sys, threading, traceback, warnings
from pathlib import Path
import torch, portrt

warnings.simplefilter("ignore")
torch.set_num_threads(2)
FILE, WANTED = sys.argv[1], None
X = torch.linspace(-1, 1, 24).view(3, 8)

def forked(call, count=1):
    statuses = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            signal.alarm(120)
            try:
                call()
            except SystemExit:
                raise
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            sys.exit(0)  # ends as a worker of a server does
        statuses.append(os.waitpid(pid, 0)[1])
    return statuses
"""


def run(code: str, *args: str) -> Any:
    done = python(FORKED + code, *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_server_forks_its_workers(saved: Path, model: torch.nn.Module) -> None:
    """Their calls are right, they end, and so do their own children; the parent goes on."""
    found = run(
        """
import json
served = {
    "torch": torch.export.load(FILE).module(),
    "module": portrt.load(FILE, output_format="module"),
    "source": portrt.load(FILE, engines=()).module(),
    "never called": portrt.load(FILE).module(),
}
wanted = served["torch"](X)
for name, module in served.items():
    if name != "never called":
        for _ in range(2):
            assert torch.equal(module(X), served[name](X))
script = torch.jit.trace(served["torch"], X, check_trace=False)

def call(name):
    for _ in range(2):
        torch.testing.assert_close(served[name](X), wanted)

def each():
    torch.testing.assert_close(script(X), wanted)
    for name in served:
        call(name)

def dropped():
    call("torch")
    served.clear()
    gc.collect()

def never_called():
    sys.exit(3)

def grandchild():
    assert forked(lambda: call("module")) == [0]

def concurrent():
    threads = [threading.Thread(target=call, args=(name,)) for name in list(served) * 2]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    os._exit(0)

def again():
    call("module")
    os._exit(0)

cases = [each, dropped, never_called, grandchild, concurrent]
results = {case.__name__: forked(case) for case in cases}
results["again"] = sorted(set(forked(again, 10)))
each()
print(json.dumps(results))
""",
        str(saved),
    )
    assert found.pop("never_called") == [3 << 8]  # its exit status
    assert {name: statuses for name, statuses in found.items() if statuses != [0]} == {}
    assert len(found) == 5


def test_forks_while_threads_load_open_and_save(saved: Path) -> None:
    """What they hold is free in the child: torch's deserializer, a block, Python's collector."""
    found = run(
        """
import json
from portrt.engines.onnxruntime import session
from portrt.format.temp_file import temporary_folder
from torch._export.serde import serialize

served = portrt.load(FILE).module()
inside, leave = threading.Event(), threading.Event()

def waits(real):
    def call(*args, **kwargs):
        if threading.current_thread().name == "waits":
            inside.set()
            leave.wait()
        return real(*args, **kwargs)
    return call

serialize.deserialize_torch_artifact = waits(serialize.deserialize_torch_artifact)
session.open_session = waits(session.open_session)

def child():
    assert gc.isenabled()
    portrt.load(FILE).module()(X)
    served(X)
    with portrt.runtime.policy(engines=()):
        served(X)
    os._exit(0)

results = {}
for name, work in {
    "load": lambda: portrt.load(FILE),
    "torch": lambda: torch.export.load(FILE),
    "open": lambda: served(X),
}.items():
    inside.clear(); leave.clear()
    thread = threading.Thread(target=work, name="waits")
    thread.start()
    inside.wait()
    results[name] = forked(child)
    leave.set()
    thread.join()
with temporary_folder("portrt-test-") as folder:
    results["folder"] = forked(lambda: None)
    assert folder.is_dir()
assert not folder.exists()
assert gc.isenabled()
served(X)
print(json.dumps(results))
""",
        str(saved),
    )
    assert found == {"load": [0], "torch": [0], "open": [0], "folder": [0]}


def _call(file: str) -> list[float]:
    module = portrt.load(file, output_format="module")
    result: list[float] = module(torch.ones(2, 8)).flatten().tolist()
    return result


def test_spawned_processes_load_for_themselves(saved: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_call, [str(saved)]) == [_call(str(saved))]
