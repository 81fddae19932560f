"""Load saved programs, transform and save them again, in a process of their own.

`python transform.py JOBS.json`. A job: {"file", "case", "how", "to"}. The errors go to JOBS.out.
"""

import importlib
import json
import sys
import traceback
from pathlib import Path

import torch
from models import CASES


def transform(job):
    case = CASES[job["case"]]
    for name in case.needs:
        importlib.import_module(name)
    program = torch.export.load(job["file"])
    args, kwargs = case.arguments()[0]
    if job["how"] == "torchscript":
        module = program.module()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        traced = torch.jit.trace(module, args, strict=False)
        traced.load_state_dict(before, strict=False)  # tracing runs the module
        torch.jit.save(traced, job["to"])
        return
    if job["how"] == "reexport":
        program = torch.export.export(
            program.module(), args, kwargs, dynamic_shapes=case.dynamic_shapes
        )
    elif job["how"] == "decompose":
        program = program.run_decompositions()
    torch.export.save(program, job["to"])


def main(path):
    jobs = json.loads(Path(path).read_text())
    errors = []
    for job in jobs:
        try:
            transform(job)
            errors.append("")
        except Exception:
            errors.append(traceback.format_exc()[-3000:])
    Path(path).with_suffix(".out").write_text(json.dumps(errors))


if __name__ == "__main__":
    main(sys.argv[1])
