"""The steps that benchmarks/files.py times, each in a process of its own: file_steps.py NAME DIR.

Times begin after the imports that both sides of a comparison share.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

LAYERS, WIDTH = 16, 4096
WEIGHTS_BYTES = LAYERS * WIDTH * WIDTH * 4  # 1.07 GB
LARGE, SMALL, ONE_NODE, IMAGE, ONNX = "large.pt2", "small.pt2", "one.pt2", "w.safetensors", "m.onnx"


def peak_bytes() -> int:
    """Not `ru_maxrss`, which begins with the memory of the process that started this one."""
    text = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) * 1024


def layers(count: int, width: int) -> Any:
    import torch

    torch.manual_seed(0)
    held = [[torch.nn.Linear(width, width, bias=False), torch.nn.ReLU()] for _ in range(count)]
    return torch.nn.Sequential(*(layer for pair in held for layer in pair)).eval()


def _compile(model: Any, width: int, path: Path) -> None:
    import portrt

    sizes = {"min_shape": (1, width), "opt_shape": (4, width), "max_shape": (16, width)}
    program = portrt.compile(
        model,
        inputs=[portrt.Input(**sizes)],
        engines="onnxruntime",
        min_block_size=1,
        output_format="exported_program",
    )
    portrt.save(program, path, progress=False)


def compile_large(folder: Path) -> dict[str, Any]:
    """The peak is taken after saving."""
    _compile(layers(LAYERS, WIDTH), WIDTH, folder / LARGE)
    return {"peak_bytes": peak_bytes()}


def make_others(folder: Path) -> dict[str, Any]:
    """What the other steps read: small programs, and the large one's parts by hand."""
    import torch

    from portrt.format.archive import Archive, engine_calls

    _compile(layers(2, 16), 16, folder / SMALL)
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(2),)), folder / ONE_NODE)
    (call,) = engine_calls(Archive(folder / LARGE))
    (engine,) = call.manifest.engines
    assert call.manifest.weights is not None
    with (folder / LARGE).open("rb") as file:
        for blob, name in ((call.manifest.weights, IMAGE), (engine.data, ONNX)):
            record = call.blobs[blob.index]
            file.seek(record.offset)
            with (folder / name).open("wb") as target:
                left = record.size
                while left:
                    left -= target.write(file.read(min(left, 16 << 20)))
    for size in ("100e6", "10e9"):
        _lengthened(folder / SMALL, folder / f"{size}.pt2", int(float(size)))
    return {}


def _lengthened(source: Path, target: Path, size: int) -> None:
    """The same program with an engine of many zero bytes, which the disk need not hold."""
    from portrt.format.archive_writer import ArchiveWriter
    from portrt.format.editor import ProgramEditor

    draft = ProgramEditor(source)
    (call,) = draft.calls
    entry = call.entry["engines"][0]["data"]
    record = call.record(entry)
    entry["size"] = record.size + size
    room = target.with_suffix(".short")
    draft._graph["tensor_values"][call.blobs[entry["blob"]]]["sizes"] = [
        {"as_int": record.size + size}
    ]
    from portrt.format.archive import MODEL, Archive
    from portrt.format.editor import _store

    # The manifest is stored without the check that its blob has that size.
    _store(call)
    archive = Archive(source)
    with room.open("wb") as file, source.open("rb") as read:
        writer = ArchiveWriter(file, archive.root)
        for name, held in archive.records.items():
            if name == MODEL:
                writer.write(name, json.dumps(draft._model).encode())
            elif held == record:
                _write_hole(writer, file, read, name, held, size)
            else:
                writer.copy(name, read, held)
        writer.close()
    room.replace(target)


def _write_hole(writer: Any, file: Any, read: Any, name: str, held: Any, size: int) -> None:
    header = writer._begin(name, held.size + size)
    read.seek(held.offset)
    writer._put(read.read(held.size))
    file.flush()
    file.seek(size, os.SEEK_CUR)
    writer._position += size
    writer._end(name, held.size + size, held.crc, header)


def open_large(folder: Path) -> dict[str, Any]:
    import onnxruntime  # noqa: F401
    import torch

    import portrt

    x = torch.ones(4, WIDTH)
    started = time.perf_counter()
    portrt.load(folder / LARGE).module()(x)
    return {"seconds": time.perf_counter() - started, "peak_bytes": peak_bytes()}


def open_by_hand(folder: Path) -> dict[str, Any]:
    import onnxruntime as ort
    import torch
    from safetensors import safe_open

    x = torch.ones(4, WIDTH)
    started = time.perf_counter()
    options = ort.SessionOptions()
    with safe_open(folder / IMAGE, framework="pt") as file:
        names = list(file.keys())
        tensors = [file.get_tensor(name) for name in names]
    options.add_external_initializers(names, [ort.OrtValue.from_dlpack(t) for t in tensors])
    data = (folder / ONNX).read_bytes()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return {"seconds": time.perf_counter() - started, "peak_bytes": peak_bytes()}


def open_one_node(folder: Path) -> dict[str, Any]:
    import onnxruntime  # noqa: F401
    import torch

    import portrt  # noqa: F401

    started = time.perf_counter()
    program = torch.export.load(folder / ONE_NODE)
    seconds = time.perf_counter() - started
    program.module()(torch.ones(2))
    return {"seconds": seconds, "peak_bytes": peak_bytes()}


def load_small(folder: Path) -> dict[str, Any]:
    """With the import of portrt, which torch's side does not need."""
    import torch  # noqa: F401

    started = time.perf_counter()
    import portrt

    portrt.load(folder / SMALL)
    return {"seconds": time.perf_counter() - started}


def load_by_torch(folder: Path) -> dict[str, Any]:
    import torch

    started = time.perf_counter()
    torch.export.load(folder / SMALL)
    return {"seconds": time.perf_counter() - started}


def inspect_100_mb(folder: Path) -> dict[str, Any]:
    return _inspect(folder / "100e6.pt2")


def inspect_10_gb(folder: Path) -> dict[str, Any]:
    return _inspect(folder / "10e9.pt2")


def _inspect(path: Path) -> dict[str, Any]:
    """The whole command, the start of the interpreter included."""
    command = [sys.executable, "-c", "import portrt.cli; portrt.cli.main()", "inspect", str(path)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"seconds": time.perf_counter() - started}


def add_engine(folder: Path) -> dict[str, Any]:
    """What is beyond the build, by the function's own clock."""
    from portrt.files.insert_engine import add_engine, logger

    told: list[Any] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.args)  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    target = folder / "added.pt2"
    target.unlink(missing_ok=True)
    add_engine(folder / LARGE, "onnxruntime", output=target, progress=False)
    target.unlink()
    _, _, total, building = told[-1]
    return {"seconds": total - building, "building": building}


def copy_file(folder: Path) -> dict[str, Any]:
    """Until the disk has it, as for every file that portrt writes."""
    target = folder / "copy.pt2"
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    shutil.copyfile(folder / LARGE, target)
    with target.open("r+b") as file:
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    target.unlink()
    return {"seconds": seconds}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
