"""torch's reader of programs, over memory, without what it would unpickle."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from portrt.errors import LoadError
from portrt.format.archive import CONSTANTS, MODEL, SAMPLE_INPUTS, WEIGHTS, Archive
from portrt.format.treespec import is_quotable
from portrt.torch_internals.serialization import never_truncate_mapped_files, one_at_a_time

logger = logging.getLogger(__name__)

_QUANTIZED = "torch.ops.quantized_decomposed."
# How torch begins the text about a node; the text of the node follows, manifest included.
_NODE = re.compile(r"Failed deserializing node Node\(target='([\w.]{1,200})'", re.ASCII)
_MAX_LINE = 300


def read_program(
    archive: Archive, memory: Any, operators: Iterable[str], *, pickled: bool
) -> ExportedProgram:
    """Read the program named "model" of an archive whose program was checked.

    Args:
        archive: The archive.
        memory: Its bytes, which the program's tensors are views of.
        operators: The operators that the program names.
        pickled: Allow Python's pickle for example inputs, weights and constants.

    Raises:
        LoadError: An operator is not registered in this process.
        TimeoutError: Another thread was in torch's deserializer for five minutes.
    """
    from torch.export.pt2_archive import _package

    _check_registered(archive, operators)
    inputs = archive.read(SAMPLE_INPUTS)
    plain = _plain_inputs(inputs)
    if inputs and not plain and pickled:
        # Not left to torch, which also logs that it did so, with a wrong format.
        plain = torch.load(io.BytesIO(inputs), weights_only=False)

    class Reader(_package.PT2ArchiveReader):
        def __init__(self) -> None:
            self.archive_file: Any = _Records(archive, memory)

        def read_bytes(self, name: str) -> Any:
            return plain if name == SAMPLE_INPUTS else super().read_bytes(name)

    never_truncate_mapped_files()
    programs = one_at_a_time(lambda: _package._load_exported_programs(Reader(), [MODEL], None))
    program: ExportedProgram = programs["model"]
    if inputs and not pickled and not _fit(program, plain):
        logger.info("the example inputs in %s are not read: they are pickled", archive.path)
        program._example_inputs = _stand_ins(program)
    return program


def reading_fault(err: BaseException) -> str:
    """Describe in a line why torch cannot read a program: its own texts hold whole nodes."""
    node = _NODE.match(str(err))
    where = f"in a call of {node[1]}: " if node else ""
    while err.__cause__ is not None:
        err = err.__cause__
    line = str(err).partition("\n")[0]
    return f"{where}{type(err).__name__}: {line:.{_MAX_LINE}}"


class _Records:
    """The part of `torch._C.PyTorchFileReader` that torch's reader uses, over memory."""

    def __init__(self, archive: Archive, memory: Any) -> None:
        self._archive = archive
        self._memory = memory

    def get_record_size(self, name: str) -> int:
        return self._archive.record(name).size

    def get_record(self, name: str) -> bytes | memoryview:
        """Return tensors as views of the memory (torch 2.11 reads them so), others as bytes."""
        if not name.startswith((CONSTANTS, WEIGHTS)) or name.endswith(".json"):
            return self._archive.read(name)
        record = self._archive.record(name)
        return memoryview(self._memory)[record.offset : record.offset + record.size]

    def get_storage_from_record(self, name: str, numel: int, dtype: torch.dtype) -> torch.Tensor:
        record = self._archive.record(name)
        if numel * dtype.itemsize != record.size:
            raise ValueError(f"record {name} has {record.size} bytes")
        found = torch.frombuffer(
            self._memory, dtype=torch.uint8, count=record.size, offset=record.offset
        )
        if record.offset % dtype.itemsize:  # writers other than torch's may not align tensors
            found = found.clone()
        return found.view(dtype)

    def get_all_records(self) -> list[str]:
        return list(self._archive.records)


def _check_registered(archive: Archive, operators: Iterable[str]) -> None:
    """Raise LoadError unless every overload that a program names is an operator of torch's."""
    names = [name for name in sorted(operators) if name.startswith("torch.ops.")]
    if any(name.startswith(_QUANTIZED) for name in names):
        import_module("torch.ao.quantization.fx._decomposed")  # registers its operators
    for name in names:
        namespace, operator, *overload = name.removeprefix("torch.ops.").split(".")
        found: Any = None
        if not hasattr(type(torch.ops), namespace):  # a method such as load_library
            found = getattr(getattr(torch.ops, namespace), operator, None)
        for part in overload:
            found = getattr(found, part, None)
        if not isinstance(found, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
            raise LoadError(
                f"{str(archive.path)!r} calls {name!r:.200}, which is no operator in this process",
                "operators that torch or an imported library registers",
                "import the library that defines the operator before loading",
            )


def _plain_inputs(data: bytes) -> Any:
    """Read example inputs without running anything in them; empty bytes if that is impossible."""
    if not data or not _is_stored(data):
        return b""
    try:
        found = torch.load(io.BytesIO(data), weights_only=True)
    except Exception as err:
        logger.debug("example inputs need pickle: %s", err)
        return b""
    if type(found) is not tuple or len(found) != 2 or not _has_plain_keys(found, 0):
        return b""
    return found


def _is_stored(data: bytes) -> bool:
    """Return whether this is a zip file without compressed records, as torch.save writes it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as records:
            return all(info.compress_type == zipfile.ZIP_STORED for info in records.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _has_plain_keys(value: Any, depth: int) -> bool:
    """Return whether all keys can be put into Python code, which torch does for its guards."""
    if depth > 100:
        return False
    if isinstance(value, dict):
        keys = all(isinstance(key, int) or is_quotable(key) for key in value)
        return keys and all(_has_plain_keys(item, depth + 1) for item in value.values())
    if isinstance(value, (tuple, list)):
        return all(_has_plain_keys(item, depth + 1) for item in value)
    return not isinstance(value, str) or is_quotable(value)


def _fit(program: ExportedProgram, inputs: Any) -> bool:
    """Return whether example inputs have the structure of the program's inputs."""
    from torch.export._tree_utils import reorder_kwargs

    spec = program.call_spec.in_spec
    try:
        args, kwargs = inputs
        ordered = (args, reorder_kwargs(kwargs, spec))
        return bool(pytree.tree_structure(ordered) == spec)
    except Exception:
        return False


def _stand_ins(program: ExportedProgram) -> Any:
    """Make example inputs of fake tensors: torch finds the names of inputs for its guards in them.

    Returns None where the structure of the inputs does not fit their number.
    """
    places = [node for node in program.graph.nodes if node.op == "placeholder"]
    leaves = [
        node.meta.get("val")
        for node, spec in zip(places, program.graph_signature.input_specs, strict=False)
        if spec.kind is InputKind.USER_INPUT
    ]
    try:
        return pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    except Exception as err:
        logger.debug("no example inputs: %s", err)
        return None
