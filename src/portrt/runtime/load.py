"""load: a file to a program; what will not be used is not read."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Literal, overload

import torch
from torch.export import ExportedProgram

from portrt import torch_internals
from portrt.arguments import as_names
from portrt.errors import LoadError
from portrt.format import manifest as manifests
from portrt.format.archive import MODEL, Archive, EngineCall, engine_calls
from portrt.format.memory_map import map_file
from portrt.graphs.nested import graph_modules
from portrt.progress import progress_bar
from portrt.runtime.calls import engine_calls as calls_of_program
from portrt.runtime.policy import Policy
from portrt.runtime.trust import mark_trusted
from portrt.targets.trust import HOST_CODE

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def _paused_collector() -> Iterator[None]:
    """Without the collector of cycles, which would walk over what loading makes and imports again
    and again, and find nothing of it to collect."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@overload
def load(
    path: str | os.PathLike[str],
    *,
    output_format: Literal["exported_program"] = ...,
    fallback: str | None = ...,
    engines: Sequence[str] | str | None = ...,
    rebuild: str | None = ...,
    trust: Sequence[str] | str | None = ...,
    cuda_graphs: int | None = ...,
    check: str | None = ...,
    verify: bool = ...,
    progress: bool | None = ...,
) -> ExportedProgram: ...


@overload
def load(
    path: str | os.PathLike[str],
    *,
    output_format: Literal["module"],
    fallback: str | None = ...,
    engines: Sequence[str] | str | None = ...,
    rebuild: str | None = ...,
    trust: Sequence[str] | str | None = ...,
    cuda_graphs: int | None = ...,
    check: str | None = ...,
    verify: bool = ...,
    progress: bool | None = ...,
) -> torch.nn.Module: ...


@_paused_collector()
def load(
    path: str | os.PathLike[str],
    *,
    output_format: str = "exported_program",
    fallback: str | None = None,
    engines: Sequence[str] | str | None = None,
    rebuild: str | None = None,
    trust: Sequence[str] | str | None = None,
    cuda_graphs: int | None = None,
    check: str | None = None,
    verify: bool = False,
    progress: bool | None = None,
) -> ExportedProgram | torch.nn.Module:
    """Read a program that `portrt.save` or `torch.export.save` wrote.

    The file is mapped: engines that do not run here are not read from disk, and it must not be
    changed in place while the program lives (`portrt.save` replaces, and never changes, a file).
    Manifests and blob sizes are checked now; the digest of an engine or source is checked before it
    is used, or now with `verify`.

    Args:
        path: The file.
        output_format: "exported_program", or "module" for its callable, as `compile` returns it:
            it names wrong inputs, and calls a program of one engine without torch's dispatcher.
        fallback: "eager" or "error", in place of what the program was compiled with.
        engines: Names of the backends that may run, likewise.
        rebuild: "missing" builds an engine from the source where no stored one fits, at the first
            call; "never" does not.
        trust: "host-code" lets the engines of this file bring code for the CPU along, as TensorRT
            plans for later versions do; in this process, and in no file that it writes.
        cuda_graphs: Number of CUDA graphs that a TensorRT engine may keep; see
            `portrt.runtime.cuda_graphs`.
        check: "first-open" compares an engine that was not checked when it was built with the
            source, when it is opened here first, and does not run it if its numbers differ; "off"
            does not.
        verify: Check the digests of all blobs, the weights' included, and all other records.
        progress: Show a progress bar while verifying; None shows it where standard error is a
            terminal and there is much to read.

    Returns:
        The program, of which `.module()` gives torch's own callable, or the module.

    Raises:
        LoadError: The file is not there, no torch.export archive, damaged, or refused by torch.
        PackageError: A manifest is malformed, of an unknown format, or does not describe the blobs;
            with `verify` also a digest that differs.
        SettingsError: An unknown fallback, engine name, rebuild, trust or check.
    """
    started = time.perf_counter()
    if output_format != "exported_program":
        from portrt.arguments import OUTPUT_FORMATS, one_of

        one_of("output_format", output_format, OUTPUT_FORMATS)
    policy = Policy(fallback, as_names(engines, "engines"), rebuild, None, cuda_graphs, check)
    trusted = Policy(trust=as_names(trust, "trust")).trust or ()
    archive = Archive(os.fspath(path))
    if MODEL not in archive.records:
        raise LoadError(
            f"{str(path)!r} has no program named 'model'",
            "a file of portrt.save or torch.export.save",
            "for a file of several programs use torch.export.pt2_archive",
        )
    calls = engine_calls(archive)
    if verify:
        verify_digests(archive, calls, progress)
    try:
        program = torch_internals.load_mapped(archive)
    except Exception as err:
        raise LoadError(
            f"torch {torch.__version__} cannot read the program in {str(path)!r}: {err}",
            "a program that this version of torch reads",
            "use the torch version that wrote the file, or a newer one",
        ) from err
    if policy != Policy():
        _store_policy(program, policy)
    if HOST_CODE in trusted:
        for engine in (engine for call in calls for engine in call.manifest.engines):
            mark_trusted(engine.data.sha256)
    seconds = time.perf_counter() - started
    logger.info("loaded %d blocks from %s in %.2f s", len(calls), path, seconds)
    if output_format == "exported_program":
        return program
    from portrt.runtime.module import module_of  # what runs it, which loading alone need not import

    return module_of(program)


def verify_digests(archive: Archive, calls: Sequence[EngineCall], progress: bool | None) -> None:
    """Check the digest of every blob in a file, and the CRC-32 of every other record.

    Raises:
        PackageError: A blob is not what its manifest says.
        LoadError: Another record is not what was written.
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
    """Put the policy into the manifests, so that it goes where the program goes."""
    for node in calls_of_program(program):
        entry = manifests.parse(node.args[2])
        # Field by field: a stored name that this portrt does not know stays what it is.
        given = dataclasses.asdict(policy)
        entry["policy"].update({key: value for key, value in given.items() if value is not None})
        node.update_arg(2, manifests.encode(entry))
    for module in graph_modules(program.graph_module):
        module.recompile()
