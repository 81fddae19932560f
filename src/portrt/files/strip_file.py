"""strip: removes engines or sources from a file, and copies the rest unchanged. No torch."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from portrt.errors import SettingsError
from portrt.format.editor import CallEditor, ProgramEditor

logger = logging.getLogger(__name__)


def strip(
    path: str | os.PathLike[str],
    engine: str | Sequence[str] | None = None,
    source: bool = False,
    keep: str | Sequence[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    progress: bool | None = None,
) -> None:
    """Remove engines, or the sources, from a compiled file.

    Without its source a block has no fallback, and no engine can be added to it.

    Args:
        path: The file.
        engine: Backends whose engines are removed from every block.
        source: Whether the sources are removed.
        keep: Backends whose engines are kept; all others are removed. Not together with `engine`.
        output: The file to write; None replaces `path`, when the new file is complete.
        force: Allow blocks that are left with neither an engine nor a source.
        progress: Show a progress bar; None shows it on a terminal, for a large file.

    Raises:
        LoadError: The file is no torch.export archive, or damaged.
        PackageError: A manifest in it is malformed, or it calls no engine.
        SettingsError: Nothing is to be removed, the file has no engine of a name, or a block would
            be left with neither an engine nor its source.
        SaveError: The file cannot be written; what was there is unchanged.
    """
    started = time.perf_counter()
    gone, kept = names_of(engine), names_of(keep)
    if (gone is None) == (kept is None) and not (source and gone is None):
        raise SettingsError(
            "strip got both engine and keep" if gone else "strip got nothing to remove",
            "engine, source or keep (engine or keep together with source)",
            "leave one out" if gone else "name what to remove",
        )
    draft = ProgramEditor(os.fspath(path))
    stored = {item["backend"] for call in draft.calls for item in call.entry["engines"]}
    for name in (*(gone or ()), *(kept or ())):
        if name not in stored:
            raise SettingsError(
                f"no block of {str(path)!r} has an engine {name!r}",
                f"one of {', '.join(map(repr, sorted(stored))) or 'none: no engine is stored'}",
                "correct the name; `portrt inspect` lists the engines of the file",
            )
    for call in draft.calls:
        _strip_call(call, gone, kept, source, force)
    target = Path(path if output is None else output)
    draft.write(target, progress)
    logger.info(
        "stripped %d bytes to %d in %.2f s",
        draft.archive.size,
        target.stat().st_size,
        time.perf_counter() - started,
    )


def names_of(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Normalize one name or several to a tuple; None if there are none."""
    if names is None or isinstance(names, str):
        return (names,) if names else None
    return tuple(names) or None


def _strip_call(
    call: CallEditor,
    gone: tuple[str, ...] | None,
    kept: tuple[str, ...] | None,
    source: bool,
    force: bool,
) -> None:
    engines = call.entry["engines"]
    if gone is not None:
        engines = [item for item in engines if item["backend"] not in gone]
    if kept is not None:
        engines = [item for item in engines if item["backend"] in kept]
    has_source = call.entry["source"] is not None and not source
    if not engines and not has_source and not force:
        raise SettingsError(
            f"block {call.name} would be left with neither an engine nor its source: nothing could "
            "run it",
            "an engine or the source left in every block",
            "keep an engine, or give force=True (--force) if that is meant",
        )
    call.keep_engines(engines)
    if source:
        call.drop_source()
