"""A progress bar on standard error, for work that is long enough to want one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

_LARGE_BYTES = 64 << 20


@contextlib.contextmanager
def progress_bar(what: str, total: int, shown: bool | None) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of bytes that were just done.

    Args:
        what: What is being done.
        total: Bytes in all.
        shown: None shows it where standard error is a terminal and there is much to do.
    """
    if shown is None:
        shown = total >= _LARGE_BYTES and sys.stderr.isatty()
    if not shown:
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
