"""Progress bars on standard error for long operations."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

_LARGE_BYTES = 64 << 20

# (phase, completed steps, total steps) -> None
ShowStep = Callable[[str, int, int], None]


@contextlib.contextmanager
def step_bar(what: str) -> Iterator[ShowStep]:
    """Yield a function to call with each step of a phase; shown if standard error is a terminal.

    The bar appears with the first step and disappears at the end.

    Args:
        what: Description of the operation.
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
    """Yield a function to call with the number of bytes that were processed since the last call.

    Args:
        what: Description of the operation.
        total: Total number of bytes.
        shown: Whether to show the bar; None shows it for large totals if standard error is a
            terminal.
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
