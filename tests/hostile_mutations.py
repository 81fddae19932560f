"""Files that are changed where it hurts: JSON, records and ONNX bytes, with all digests made right.

Imports no torch: what it makes from a seed is the same in every process.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MODEL, CONSTANTS, WEIGHTS = "models/model.json", "constants_config.json", "weights_config.json"
SECRET = "portrt-secret.bin"  # in the folder where the worker runs

MARKER = "portrt-marker"  # the file that code in a program would make there
CODE = f"__import__('pathlib').Path('{MARKER}').touch()"
TEXTS = [
    *(
        CODE,
        f"{CODE} or True",
        f"x=({CODE})",
        f"x); {CODE}; (",
        f'x")+{CODE}+("',
        f"' or {CODE} or '",
    ),
    *("torch.os.system", "torch.load", "_operator.attrgetter", "math.__loader__", "9**9**9"),
    *("torch.ops.aten.from_file.default", "torch.ops.higher_order.call_torchbind", "__class__"),
    *("torch.ops.aten.relu.default", "torch.ops.aten.add.Tensor", "s0", "u99999999999", "", "x"),
    *("../../etc/passwd", SECRET, "a" * 5000, "\0", "\ud800", "data/constants/tensor_0", "cuda"),
    *("this", "__class__.__base__.forward", "Infinity", "NaN", "eager", "first-open", "missing"),
]
NUMBERS: list[Any] = [0, 1, -1, 2, 3, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, True]
OTHERS: list[Any] = [None, [], {}, [None], [[]], {"as_int": 3}, {"as_none": True}, ["dim", 0, 0]]


@dataclass
class Zip:
    """A file as its records, with the program in it as JSON."""

    records: dict[str, bytes]

    @classmethod
    def of(cls, data: bytes) -> Zip:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return cls({info.filename: archive.read(info) for info in archive.infolist()})

    def name(self, end: str) -> str:
        return next(name for name in self.records if name.endswith(end))

    def json(self, end: str) -> Any:
        return json.loads(self.records[self.name(end)])

    def store(self, end: str, tree: Any) -> None:
        self.records[self.name(end)] = json.dumps(tree).encode()

    def data(self, compress: int = zipfile.ZIP_STORED) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compress) as archive:
            for name, content in self.records.items():
                archive.writestr(name, content)
        return out.getvalue()


def nodes_of(graph: Any) -> Iterator[Any]:
    """Every node, of nested graphs too."""
    for node in graph["nodes"]:
        yield node
        for item in node["inputs"]:
            if "as_graph" in item["arg"]:
                yield from nodes_of(item["arg"]["as_graph"]["graph"])


class Program:
    """A compiled file laid open: its JSON, its manifests, and its blobs."""

    def __init__(self, data: bytes) -> None:
        self.zip = Zip.of(data)
        self.model = self.zip.json(MODEL)
        self.constants = self.zip.json(CONSTANTS)
        self.graph = self.model["graph_module"]["graph"]
        self.calls = [n for n in nodes_of(self.graph) if n["target"].startswith("torch.ops.portrt")]
        specs = self.model["graph_module"]["signature"]["input_specs"]
        self._names = {
            spec["tensor_constant"]["arg"]["name"]: spec["tensor_constant"]["tensor_constant_name"]
            for spec in specs
            if "tensor_constant" in spec
        }

    def argument(self, call: Any, name: str) -> Any:
        return next(item["arg"] for item in call["inputs"] if item["name"] == name)

    def manifest(self, call: Any) -> Any:
        return json.loads(self.argument(call, "manifest")["as_string"])

    def store_manifest(self, call: Any, manifest: Any) -> None:
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
        self.argument(call, "manifest")["as_string"] = text

    def change_blob(self, call: Any, entry: Any, change: Callable[[bytes], bytes]) -> None:
        """Change a blob of the program's own graph, and its size everywhere."""
        name = self.argument(call, "blobs")["as_tensors"][entry["blob"]]["name"]
        constant = self._names.get(name)
        if constant is None:  # of a nested graph
            return
        payload = self.constants["config"][constant]
        record = self.zip.name(f"constants/{payload['path_name']}")
        data = self.zip.records[record] = change(self.zip.records[record])
        sizes = [{"as_int": len(data)}]
        payload["tensor_meta"]["sizes"] = self.graph["tensor_values"][name]["sizes"] = sizes
        digest = hashlib.sha256(data).hexdigest()
        for other in self.calls:  # the weights image is shared
            manifest = self.manifest(other)
            blobs = [manifest["weights"], manifest["source"]]
            for engine in manifest["engines"]:
                blobs += [engine["data"], *(part["data"] for part in parts_of(engine))]
            for held in blobs:
                names = self.argument(other, "blobs")["as_tensors"]
                if held and names[held["blob"]]["name"] == name:
                    held.update(size=len(data), sha256=digest)
            self.store_manifest(other, manifest)

    def data(self) -> bytes:
        self.zip.store(MODEL, self.model)
        self.zip.store(CONSTANTS, self.constants)
        return self.zip.data()


def parts_of(engine: Any) -> Any:
    """The engines of an engine in parts."""
    parts = engine.get("parts") if isinstance(engine, dict) else None
    return parts["engines"] if parts else []


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) in a JSON tree."""
    found, waiting = [], [tree]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, value in items:
            found.append((holder, key))
            if isinstance(value, (dict, list)):
                waiting.append(value)
    return found


def change_json(tree: Any, chance: random.Random) -> None:
    """Change one to three places, most often to a value of the same kind."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        places = _places(tree)
        if not places:
            return
        holder, key = chance.choice(places)
        kind = chance.random()
        if kind < 0.1:
            del holder[key]
        elif kind < 0.2:
            holder[key] = copy.deepcopy(chance.choice([h[k] for h, k in places]))
        elif kind < 0.25 and isinstance(holder, list):
            holder.insert(chance.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif kind < 0.3 and isinstance(holder, list):
            chance.shuffle(holder)
        elif kind < 0.35 and isinstance(holder, dict):
            holder[chance.choice(TEXTS)] = holder.pop(key)
        elif kind < 0.4:
            holder[key] = copy.deepcopy(chance.choice([*OTHERS, *NUMBERS, *TEXTS]))
        else:
            holder[key] = _like(holder[key], [h[k] for h, k in places], chance)


def _like(value: Any, others: list[Any], chance: random.Random) -> Any:
    """Make another value of the same kind."""
    same = [other for other in others if type(other) is type(value) and other != value]
    if same and chance.random() < 0.5:
        return copy.deepcopy(chance.choice(same))
    if isinstance(value, str):
        return chance.choice(TEXTS)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return chance.choice([*NUMBERS, value + 1, value - 1, value * 2])
    return copy.deepcopy(chance.choice(OTHERS))


def change_bytes(data: bytes, chance: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        if not content:
            break
        place, size = chance.randrange(len(content)), chance.choice([1, 1, 2, 4, 8])
        kind = chance.randrange(4)
        if kind == 0:
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[place : place + size] = chance.randbytes(size)
        elif kind == 2:
            content[place:place] = content[place : place + size]
        else:
            del content[place : place + size]
    return bytes(content)


def change_onnx(data: bytes, chance: random.Random) -> bytes:
    """Change texts of equal length, names of files, or bytes."""
    if chance.random() < 0.3:
        old = chance.choice([b"weights.safetensors", b"location", b"offset", b"length"])
        new = chance.choice([SECRET.encode(), b"/etc/passwd", b"../x", b"*/_ORT_MEM_ADDR_/*"])
        return data.replace(old, new[: len(old)].ljust(len(old), b"x"))
    if chance.random() < 0.3:
        old, new = chance.sample([b"Gemm", b"Relu", b"MatMul", b"Add", b"Mul", b"Constant"], 2)
        return data.replace(old, new[: len(old)].ljust(len(old), b"l"))
    return change_bytes(data, chance)


def _program_json(program: Program, chance: random.Random) -> None:
    tree = chance.choice([program.model, program.graph, *program.graph["nodes"]])
    change_json(tree, chance)


def _signature_json(program: Program, chance: random.Random) -> None:
    module = program.model["graph_module"]
    rest = {key: value for key, value in program.model.items() if key != "graph_module"}
    part = chance.choice([module["signature"], module["module_call_graph"], rest])
    change_json(part, chance)
    program.model.update(rest)


def _spec_text(program: Program, chance: random.Random) -> None:
    """Change the JSON within a text: the structure of arguments."""
    signature = program.model["graph_module"]["module_call_graph"][0]["signature"]
    key = chance.choice(["in_spec", "out_spec"])
    tree = json.loads(signature[key])
    change_json(tree, chance)
    signature[key] = json.dumps(tree)


def _manifest_json(program: Program, chance: random.Random) -> None:
    call = chance.choice(program.calls)
    manifest = program.manifest(call)
    change_json(manifest, chance)
    program.store_manifest(call, manifest)


def _constants_json(program: Program, chance: random.Random) -> None:
    change_json(program.constants, chance)


def _source(program: Program, chance: random.Random) -> None:
    call = chance.choice(program.calls)
    entry = program.manifest(call)["source"]

    def change(data: bytes) -> bytes:
        inner = Zip.of(data)
        end = chance.choice([MODEL, MODEL, MODEL, CONSTANTS, WEIGHTS])
        tree = inner.json(end)
        change_json(chance.choice([tree, tree.get("graph_module", tree)]), chance)
        inner.store(end, tree)
        return inner.data()

    program.change_blob(call, entry, change)


def _engine(program: Program, chance: random.Random) -> None:
    call = chance.choice(program.calls)
    engines = [e for e in program.manifest(call)["engines"] if e["backend"] == "onnxruntime"]
    entry = chance.choice(engines)["data"]
    program.change_blob(call, entry, lambda data: change_onnx(data, chance))


def _part_program(program: Program, chance: random.Random) -> None:
    """Change the program of an engine in parts: its graph, or what it says of a part."""
    (call,) = program.calls
    (engine,) = program.manifest(call)["engines"]

    def change(data: bytes) -> bytes:
        inner = Program(data)
        chance.choice([_manifest_json, _manifest_json, _program_json, _signature_json])(
            inner, chance
        )
        return inner.data()

    program.change_blob(call, engine["data"], change)


def _part_engine(program: Program, chance: random.Random) -> None:
    (call,) = program.calls
    (engine,) = program.manifest(call)["engines"]
    entry = chance.choice(parts_of(engine))["data"]
    program.change_blob(call, entry, lambda data: change_onnx(data, chance))


def _weights(program: Program, chance: random.Random) -> None:
    call = chance.choice(program.calls)
    entry = program.manifest(call)["weights"]
    if entry:
        program.change_blob(call, entry, lambda data: _header_changed(data, chance))


def _header_changed(data: bytes, chance: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    if chance.random() < 0.3:
        return change_bytes(data[: 8 + size], chance) + data[8 + size :]
    header = json.loads(data[8 : 8 + size])
    change_json(header, chance)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _record(program: Program, chance: random.Random) -> None:
    records = program.zip.records
    name = chance.choice([name for name in records if not name.endswith((MODEL, CONSTANTS))])
    kind = chance.randrange(4)
    if kind == 0:
        del records[name]
    elif kind == 1:
        records[name] = change_bytes(records[name], chance)
    elif kind == 2:
        records[chance.choice(TEXTS).strip("\0\ud800") or "x"] = records.pop(name)
    else:
        records[name] = records[chance.choice(list(records))]


CHANGES = [
    *(_program_json, _program_json, _signature_json, _spec_text, _manifest_json, _manifest_json),
    *(_constants_json, _source, _source, _engine, _engine, _weights, _record),
]

PART_CHANGES = [*[_part_program] * 4, *[_part_engine] * 2, *[_manifest_json] * 2]


def mutated(bases: list[bytes], seed: int) -> tuple[str, bytes]:
    """Return what was changed, and the changed file."""
    chance = random.Random(seed)
    program = Program(chance.choice(bases))
    engines = [engine for call in program.calls for engine in program.manifest(call)["engines"]]
    change = chance.choice(PART_CHANGES if any(map(parts_of, engines)) else CHANGES)
    change(program, chance)
    data = program.data()
    if chance.random() < 0.03:
        data = change_bytes(data, chance)
    return change.__name__, data
