"""Compiles one block in a separate process: `main` takes the path of a job file.

The job, JSON: "source": file of the block's program, "image": file of the weights image or null,
"weights": names of the weights that the program takes, "constants": their names in the package,
"shapes" and "dtypes": of example inputs, "device", "config": Inductor's configuration, "package":
file to write, "result": file to write: {"constants": names that the package takes} or {"error":
text, "details": lines}.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DETAIL_LINES = 8
_TARGET = re.compile(r"target: ([\w.]+)")


def main(path: str) -> None:
    """Run the job in a file, and write its result."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        result = _run(job)
    except Exception as err:
        traceback.print_exc()
        lines = (str(err).strip() or type(err).__name__).splitlines()
        result = {"error": lines[0], "details": lines[1:_DETAIL_LINES]}
        result["targets"] = sorted(set(_TARGET.findall(str(err))))
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def _run(job: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    import torch.ao.quantization.fx._decomposed  # registers operators of quantized models
    from torch.export.passes import move_to_device_pass

    from portrt.engines.eager import program_from_source
    from portrt.format.memory_map import map_file
    from portrt.torch_internals.aoti import LoadedPackage
    from portrt.torch_internals.inductor import compile_package
    from portrt.weights import WeightsImage

    device = torch.device(job["device"])
    source = torch.frombuffer(bytearray(Path(job["source"]).read_bytes()), dtype=torch.uint8)
    program = program_from_source("the block", source)
    weights = {}
    if job["weights"]:
        image = WeightsImage(torch.frombuffer(map_file(job["image"]), dtype=torch.uint8))
        for name, constant in zip(job["weights"], job["constants"], strict=True):
            weights[constant] = image.tensor(name).to(device)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    examples = [
        torch.zeros(shape, dtype=getattr(torch, dtype), device=device)
        for shape, dtype in zip(job["shapes"], job["dtypes"], strict=True)
    ]
    package = Path(job["package"])
    compile_package(program, examples, weights, package, job["config"])
    # Opened once, here, where a package that ends the process harms nothing.
    data = torch.frombuffer(bytearray(package.read_bytes()), dtype=torch.uint8)
    return {"constants": LoadedPackage(data, device).constants}
