"""Run saved programs in a process of their own, which imports torch and nothing else.

`python run.py JOBS.json`. A job: {"file", "inputs", "outputs", "how", "needs"}; `inputs` is a file
with [(args, kwargs)], `outputs` is written with [(result, args, kwargs)] or, for "threads", with
that list once per thread. The errors, "" for none, go to JOBS.out.
"""

import copy
import importlib
import json
import sys
import threading
import traceback
from pathlib import Path

import torch


def load(file):
    return torch.jit.load(file) if file.endswith(".ts") else torch.export.load(file).module()


def call(module, calls):
    results = []
    for arguments in calls:
        args, kwargs = copy.deepcopy(arguments)
        torch.manual_seed(7)
        results.append((module(*args, **kwargs), args, kwargs))
    return results


def in_threads(module, calls, count=4, rounds=5):
    """Each thread starts with another call, so that different inputs are under way at once."""
    found = [None] * count
    barrier = threading.Barrier(count)

    def work(index):
        barrier.wait()
        for _ in range(rounds):
            turn = index % len(calls)
            results = call(module, calls[turn:] + calls[:turn])
            found[index] = results[len(calls) - turn :] + results[: len(calls) - turn]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def run(job):
    for name in job["needs"]:
        importlib.import_module(name)
    calls = torch.load(job["inputs"], weights_only=False)
    module = load(job["file"])
    how = job["how"]
    if how == "threads":
        return in_threads(module, calls)
    if how == "deepcopy":
        module = copy.deepcopy(module)
    elif how.startswith("compile:"):
        module = torch.compile(module, backend=how.partition(":")[2])
    return call(module, calls)


def main(path):
    jobs = json.loads(Path(path).read_text())
    errors = []
    for job in jobs:
        try:
            torch.save(run(job), job["outputs"])
            errors.append("")
        except Exception:
            errors.append(traceback.format_exc()[-3000:])
    Path(path).with_suffix(".out").write_text(json.dumps(errors))
    print(" ".join(sys.modules))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
