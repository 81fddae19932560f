"""add_engine: builds engines for a compiled file from the sources in it, without model code."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portrt import torch_internals
from portrt.compiler.building.check import Sample, run_block
from portrt.compiler.building.source_plan import plan_from_source
from portrt.compiler.building.stored_precision import FIELDS, with_stored_precision
from portrt.compiler.building.tasks import EngineTask, tasks_for
from portrt.compiler.options.backend_options import option_classes, options_class
from portrt.compiler.options.fields import options_of
from portrt.compiler.options.settings import Settings
from portrt.compiler.options.torch_tensorrt import PRECISION_SYNONYMS as SYNONYMS
from portrt.compiler.parts.engines import engine_of_block
from portrt.compiler.plan import Engine, Plan
from portrt.engines import registry
from portrt.errors import PackageError, SettingsError
from portrt.format.editor import CallEditor, ProgramEditor
from portrt.format.manifest import check_digest
from portrt.format.memory_map import map_file
from portrt.runtime.random_inputs import random_block_inputs
from portrt.runtime.stored_block import StoredBlock
from portrt.targets.backends import find

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from portrt.compiler.options.compile_options import AddEngineOptions, EngineEntry

logger = logging.getLogger(__name__)

_NOT_FOR_ONE = (
    *("engines", "require_engines", "output_format", "dryrun"),
    *("optimize_for", "optimize_budget"),
)
# Options that set a precision.
_PRECISION_OPTIONS = (*FIELDS, *SYNONYMS)


def add_engine(
    path: str | os.PathLike[str],
    engine: str | EngineEntry | Mapping[str, Any],
    *,
    output: str | os.PathLike[str] | None = None,
    first: bool = False,
    progress: bool | None = None,
    **settings: Unpack[AddEngineOptions],
) -> None:
    """Build one more engine for every block of a compiled file, from the sources in it.

    Args:
        path: The file. Every block must have its source.
        engine: A backend, or a mapping with "backend" and options, as `engines` of `compile` has.
        output: The file to write; None replaces `path`, when the new file is complete.
        first: Prefer the new engine to those that are there; else it is the last choice.
        progress: Show a progress bar while writing; None shows it on a terminal, for a large file.
        **settings: Options of `compile` that an engine is built with, see docs/options.md. Without
            a precision, and what goes with it, the engine has that of the stored ones;
            precision=None gives it the model's own dtypes.

    Raises:
        LoadError: The file is no torch.export archive, or damaged.
        PackageError: A manifest or a source in it is damaged, the source was stripped, or it calls
            no engine.
        SettingsError: An option is unknown or has an invalid value.
        BackendUnavailableError: The engine cannot be built here.
        BuildError: The builder failed on a block. The file is unchanged, as after any other error.
        ConvertError: A block has no ONNX form at the opsets that the builder reads.
        CheckError: The engine's outputs differ from the source's, and `check` is "error".
        SaveError: The file cannot be written; what was there is unchanged.
    """
    started = time.perf_counter()
    chosen = _settings(engine, settings)
    draft = ProgramEditor(os.fspath(path))
    draft.check_editable()
    _check_sources(draft)
    (task,) = tasks_for(chosen)
    with _DigestCheck(draft) as mapped, torch_internals.without_torch_noise():
        given = {**settings, **_options(engine)}
        as_stored = not any(name in given for name in _PRECISION_OPTIONS)
        whole = draft.is_one_block
        built = [_build(call, mapped, task, as_stored, whole) for call in draft.calls]
        building = time.perf_counter() - started
    for call, made in zip(draft.calls, built, strict=True):
        _add(draft, call, made, first=first)
        if chosen.check == "first-open":
            call.entry["policy"]["check"] = chosen.check
    draft.write(Path(path if output is None else output), progress)
    logger.info(
        "added %s to %d blocks in %.2f s, %.2f s of it building",
        task.builder.name,
        len(built),
        time.perf_counter() - started,
        building,
    )


def _options(engine: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return engine if isinstance(engine, Mapping) else {}


def _settings(engine: str | Mapping[str, Any], settings: Mapping[str, Any]) -> Settings:
    if not isinstance(engine, (str, Mapping)):
        raise SettingsError(
            f"engine is {engine!r}", "one backend", "call add_engine once for each engine"
        )
    for name in _NOT_FOR_ONE:
        if name in settings:
            raise SettingsError(
                f"add_engine() has no option {name!r}",
                "fields of Settings that an engine is built with",
                "leave it out; the engine is the second argument",
            )
    _refuse_options_of_others(engine, settings)
    return Settings.from_options({**settings, "engines": [engine], "require_engines": True})


def _refuse_options_of_others(engine: str | Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise SettingsError for an option that only engines of other backends have."""
    name = str(engine["backend"]) if isinstance(engine, Mapping) and "backend" in engine else engine
    if not isinstance(name, str) or find(name) is None:
        return  # an error of `Settings`
    own = options_class(name)
    known = set(options_of(own)) if own is not None else set()
    others = {option for each in option_classes() for option in options_of(each)} - known
    for option in settings:
        if option in others:
            raise SettingsError(
                f"the engine {name} has no option {option!r}",
                f"its own: {', '.join(sorted(known))}" if known else "none of its own",
                "leave it out, or add an engine that has it",
            )


def _check_sources(draft: ProgramEditor) -> None:
    missing = [call.name for call in draft.calls if call.entry["source"] is None]
    if missing:
        raise PackageError(
            f"{str(draft.archive.path)!r} has no source of {', '.join(missing)}: it was stripped",
            "a source in every block, which engines are built from",
            "use a file that was not stripped, or compile the model again",
        )


class _DigestCheck:
    """The mapped file, while a thread checks the digests of the weights in it.

    An engine may hold its own copy of the weights: built from damaged ones it would stay wrong. The
    check takes about as long as copying the weights, so that it runs during the build.
    """

    def __init__(self, draft: ProgramEditor) -> None:
        self._mapped = map_file(str(draft.archive.path))
        self._weights = {
            call.record(call.entry["weights"]): call.manifest().weights
            for call in draft.calls
            if call.entry["weights"] is not None
        }
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._check, name="portrt-digests", daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        return self._mapped

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _check(self) -> None:
        try:
            for record, blob in self._weights.items():
                assert blob is not None
                data = memoryview(self._mapped)[record.offset : record.offset + record.size]
                check_digest(data, blob, "the weights image")
        except Exception as err:
            self._error = err


def _build(
    call: CallEditor, mapped: Any, task: EngineTask, as_stored: bool, is_whole_model: bool
) -> Engine:
    """Build the engine of one block; `as_stored` takes the precision of the stored engines."""
    stored = StoredBlock.mapped(call.manifest(), call.stored_blobs(), mapped)
    if as_stored:
        name, engines = task.builder.name, stored.manifest.engines
        task = EngineTask(task.builder, with_stored_precision(task.settings, engines, name))
    plan = plan_from_source(stored, is_whole_model=is_whole_model)
    (block,) = plan.blocks
    sample = _sample(plan, task)
    # A refusal in one block is none in another: nodes of several blocks have the same names.
    task = dataclasses.replace(task, refused={})
    engine = engine_of_block(plan.tensors, block, stored.image, task, sample)
    able = registry.runtime(task.builder.name).can_run("cpu")
    if not able and task.settings.check != "off":
        check = {**(engine.check or {}), "skipped": able.reason}
        engine = dataclasses.replace(engine, check=check)
    return engine


def _sample(plan: Plan, task: EngineTask) -> Sample | None:
    """Return random inputs, and what the source returns; None where nothing needs them."""
    checked = task.settings.check != "off" and registry.runtime(task.builder.name).can_run("cpu")
    if not checked and task.settings.precision is None:
        return None
    (block,) = plan.blocks
    inputs = random_block_inputs(block.signature, seed=0)
    try:
        outputs = run_block(block, plan.tensors, inputs)
    except Exception:
        logger.warning("%s is not checked: its source fails on random inputs", block.name)
        return None
    return Sample(inputs, outputs)


def _add(draft: ProgramEditor, call: CallEditor, engine: Engine, *, first: bool) -> None:
    spec, datas = engine.stored(len(call.blobs))
    parts = engine.parts.engines if engine.parts else ()
    labels = (f"engine_{engine.backend}", *(f"engine_{engine.backend}_{name}" for name in parts))
    blobs = [draft.add_blob(call, label, data) for label, data in zip(labels, datas, strict=True)]
    call.add_engine(spec.to_json(), blobs, first=first)
