"""A progress bar on standard error, for work that is long enough to want one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

_LARGE_BYTES = 64 << 20

# (phase, steps done, steps in all) -> None
ShowStep = Callable[[str, int, int], None]


@contextlib.contextmanager
def step_bar(what: str) -> Iterator[ShowStep]:
    """A function to call with each step of a phase; shown where standard error is a terminal.

    The bar appears with the first step and goes away at the end.

    Args:
        what: What is being done.
    """
    if not sys.stderr.isatty():
        yield lambda _phase, _step, _steps: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what), total=None, visible=False)

        def show(phase: str, step: int, steps: int) -> None:
            text = escape(f"{what}: {phase}")
            total = steps if steps > 0 else None
            bar.update(task, description=text, completed=step, total=total, visible=True)

        yield show


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
