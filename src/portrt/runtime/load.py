"""Loading of a file as a program; engines that are not used are not read from disk."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from portrt import forks, torch_internals
from portrt.arguments import as_names
from portrt.errors import LoadError, PortrtError
from portrt.format import manifest as manifests
from portrt.format.archive import MODEL, Archive, EngineCall, engine_calls
from portrt.format.memory_map import map_file
from portrt.format.one_call import one_call
from portrt.format.program_check import check_program, operators_of
from portrt.progress import progress_bar
from portrt.runtime.calls import engine_calls as calls_of_program
from portrt.runtime.op import register
from portrt.runtime.policy import COMPILE_FALLBACK, CONTEXT, Policy, effective, stored_fallback
from portrt.runtime.trust import mark_trusted
from portrt.targets.trust import HOST_CODE, PICKLE

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from portrt.format.file_objects import PathOrFile

logger = logging.getLogger(__name__)


_paused: list[bool] = []  # an entry for each load that will enable the collector


@contextlib.contextmanager
def _paused_collector() -> Iterator[None]:
    """Disable Python's cyclic garbage collector.

    While a program is loaded and modules are imported, it would traverse the new objects repeatedly
    and free none of them.
    """
    was_on = gc.isenabled()
    if was_on:
        _paused.append(True)
        gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
            del _paused[-1:]


def _resume_in_child() -> None:
    """Enable the collector in a forked child, where the loads of other threads do not end."""
    if _paused:
        _paused.clear()
        gc.enable()


forks.in_child(_resume_in_child)


@overload
def load(
    path: PathOrFile,
    *,
    output_format: Literal["exported_program"] = ...,
    fallback: str | None = ...,
    engines: Sequence[str] | str | None = ...,
    rebuild: str | None = ...,
    trust: Sequence[str] | str | None = ...,
    cuda_graphs: int | None = ...,
    check: str | None = ...,
    background: bool | None = ...,
    verify: bool = ...,
    progress: bool | None = ...,
) -> ExportedProgram: ...


@overload
def load(
    path: PathOrFile,
    *,
    output_format: Literal["module"],
    fallback: str | None = ...,
    engines: Sequence[str] | str | None = ...,
    rebuild: str | None = ...,
    trust: Sequence[str] | str | None = ...,
    cuda_graphs: int | None = ...,
    check: str | None = ...,
    background: bool | None = ...,
    verify: bool = ...,
    progress: bool | None = ...,
) -> torch.nn.Module: ...


@_paused_collector()
def load(
    path: PathOrFile,
    *,
    output_format: str = "exported_program",
    fallback: str | None = None,
    engines: Sequence[str] | str | None = None,
    rebuild: str | None = None,
    trust: Sequence[str] | str | None = None,
    cuda_graphs: int | None = None,
    check: str | None = None,
    background: bool | None = None,
    verify: bool = False,
    progress: bool | None = None,
) -> ExportedProgram | torch.nn.Module:
    """Read a program that `portrt.save` or `torch.export.save` wrote.

    The file is memory-mapped: engines that do not run here are not read from disk, and the file
    must not be modified in place while the program is in use (`portrt.save` replaces a file and
    never modifies it). Manifests and blob sizes are checked now; the digest of an engine or source
    is checked before its first use, or now with `verify`.

    Args:
        path: Path of the file, or a binary file object such as `io.BytesIO`, which is copied to a
            temporary file.
        output_format: "exported_program", or "module" for a callable as `compile` returns it: its
            errors name the wrong input, and a program of one engine bypasses torch's dispatcher.
        fallback: "eager"; "inductor", which compiles the source at the first call if no stored
            engine can run; or "error". Takes precedence over the value stored in the file.
        engines: Names of the backends that may run; takes precedence over the value in the file.
        rebuild: "missing" builds an engine from the source at the first call if no stored engine
            can run; "never" does not.
        trust: "host-code" permits engines of this file that carry host (CPU) code, as
            version-compatible TensorRT engines do. "pickle" permits example inputs, weights and
            constants of special classes, which only Python's pickle reads; pickled example inputs
            are else replaced by fake tensors. Applies to this process; never saved to a file.
        cuda_graphs: Number of CUDA graphs that a TensorRT engine may keep; see
            `portrt.runtime.cuda_graphs`.
        check: "first-open" compares an engine that was not checked when it was built with the
            source when it is first opened here, and rejects it if the outputs differ; "off" does
            not.
        background: Whether fallback="inductor" compiles beside calls, which run in PyTorch until
            then.
        verify: Check the digests of all blobs, including the weights, and the CRC-32 of all other
            records.
        progress: Show a progress bar while verifying; None shows it for large files if standard
            error is a terminal.

    Returns:
        The program, whose `.module()` returns torch's own callable, or the module.

    Raises:
        LoadError: The file is missing, not a torch.export archive, damaged, or rejected by torch,
            or its program would make torch evaluate text, unpickle, or call what is no operator.
        PackageError: A manifest is malformed, of an unknown format, or does not describe the blobs;
            with `verify` also a digest that differs.
        SettingsError: An unknown fallback, engine name, rebuild, trust or check.
    """
    started = time.perf_counter()
    if output_format != "exported_program":
        from portrt.arguments import OUTPUT_FORMATS, one_of

        one_of("output_format", output_format, OUTPUT_FORMATS)
    names = as_names(engines, "engines")
    policy = Policy(fallback, names, rebuild, None, cuda_graphs, check, background=background)
    trusted = Policy(trust=as_names(trust, "trust")).trust or ()
    archive = _archive_of(path)
    if MODEL not in archive.records:
        raise LoadError(
            f"{str(path)!r} has no program named 'model'",
            "a file of portrt.save or torch.export.save",
            "for a file of several programs use torch.export.pt2_archive",
        )
    model = archive.json(MODEL)
    calls = engine_calls(archive, model)
    if verify:
        verify_digests(archive, calls, progress)
    permitted = effective({}, CONTEXT.get()).trust if trust is None else trusted
    pickled = PICKLE in (permitted or ())
    check_program(archive, model, pickled=pickled)
    register()
    if archive.memory is None:
        archive.memory = map_file(str(archive.path))
    loaded: ExportedProgram | torch.nn.Module | None = None
    if output_format == "module":
        loaded = _unread(archive, model, policy, pickled)
    if loaded is None:
        program = _program(archive, operators_of(model), policy, pickled)
        if output_format == "module":
            loaded = _module_of(archive, program)
        else:
            from portrt.runtime.new_weights.compiled_program import with_update_weights

            loaded = with_update_weights(program)
    if HOST_CODE in trusted:
        for engine in (engine for call in calls for engine in call.manifest.engines):
            for blob in engine.blobs:
                mark_trusted(blob.sha256)
    seconds = time.perf_counter() - started
    logger.info("loaded %d blocks from %s in %.2f s", len(calls), path, seconds)
    return loaded


def load_bytes(data: bytes) -> torch.nn.Module:
    """Return the module of a file with these bytes, as `load` does."""
    return load(io.BytesIO(data), output_format="module")


def _archive_of(path: PathOrFile) -> Archive:
    """Return the archive of a file; that of a file object is mapped from a copy without a name."""
    if isinstance(path, (str, os.PathLike)):
        return Archive(os.fspath(path))
    from portrt.format.file_objects import to_read

    with to_read(path) as copied:
        try:
            archive = Archive(copied)
        except LoadError as err:
            happened = err.happened.replace(repr(str(copied)), f"the {type(path).__name__}")
            raise LoadError(happened, err.expected, err.remedy) from err
        archive.memory = map_file(str(copied))
    return archive


def _program(
    archive: Archive,
    operators: Iterable[str],
    policy: Policy,
    pickled: bool,
    constants: Mapping[str, torch.Tensor] | None = None,
) -> ExportedProgram:
    """Have torch read the program of a mapped archive, with these tensors for some constants."""
    from portrt.torch_internals import read_program  # imports torch.export, which takes a second

    with _reading(archive):
        program = read_program(archive, archive.memory, operators, pickled=pickled)
        program.constants.update(constants or {})
        if policy != Policy():
            _store_policy(program, policy)
    return program


def _module_of(archive: Archive, program: ExportedProgram) -> torch.nn.Module:
    from portrt.runtime.module import module_of  # imported only if a module is wanted

    with _reading(archive):
        return module_of(program)


def _unread(archive: Archive, model: Any, policy: Policy, pickled: bool) -> torch.nn.Module | None:
    """Return the module of a program that torch need not read before it is called; None if not."""
    call = one_call(archive, model)
    if call is None:
        return None
    from portrt.runtime.unread_module import unread_module

    operators = operators_of(model)

    def read(constants: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        return _module_of(archive, _program(archive, operators, policy, pickled, constants))

    if policy != Policy():
        call = dataclasses.replace(call, text=_with_policy(call.text, policy))
    blobs = [
        torch.frombuffer(archive.memory, dtype=torch.uint8, count=item.size, offset=item.offset)
        for _, item in call.blobs
    ]
    return unread_module(call, blobs, read)


@contextlib.contextmanager
def _reading(archive: Archive) -> Iterator[None]:
    """Turn what torch raises into a LoadError."""
    try:
        yield
    except PortrtError:
        raise
    except Exception as err:
        fault = torch_internals.reading_fault(err)
        raise LoadError(
            f"torch {torch.__version__} cannot read the program in {str(archive.path)!r}: {fault}",
            "a program that this version of torch reads",
            "use the torch version that wrote the file, or a newer one",
        ) from err


def verify_digests(archive: Archive, calls: Sequence[EngineCall], progress: bool | None) -> None:
    """Check the digest of every blob in a file, and the CRC-32 of every other record.

    Raises:
        PackageError: A blob does not match the digest in its manifest.
        LoadError: Another record does not match its CRC-32.
    """
    blobs = {
        call.blobs[blob.index]: (blob, f"{label} of {call.manifest.name}")
        for call in calls
        for label, blob in manifests.labelled_blobs(call.manifest)
    }
    total = sum(record.size for record in archive.records.values())
    with progress_bar(f"verifying {archive.path.name}", total, progress) as bar:
        mapped = memoryview(map_file(str(archive.path)))
        for name, record in archive.records.items():
            content = mapped[record.offset : record.offset + record.size]
            if record in blobs:
                manifests.check_digest(content, *blobs[record])
            else:
                archive.check_crc(name, content)
            bar(record.size)


def _store_policy(program: ExportedProgram, policy: Policy) -> None:
    """Store the policy in the manifests, so that it stays with the program."""
    from portrt.graphs.nested import graph_modules

    for node in calls_of_program(program):
        node.update_arg(2, _with_policy(node.args[2], policy))
    for module in graph_modules(program.graph_module):
        module.recompile()


def _with_policy(manifest: str, policy: Policy) -> str:
    entry = manifests.parse(manifest)
    # Field by field, which keeps stored names that this version of portrt does not know.
    given = {key: value for key, value in dataclasses.asdict(policy).items() if value is not None}
    if policy.fallback is not None:
        entry["policy"].pop(COMPILE_FALLBACK, None)
        given |= stored_fallback(policy.fallback)
    entry["policy"].update(given)
    return manifests.encode(entry)
