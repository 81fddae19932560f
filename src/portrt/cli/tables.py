"""Tables and sizes for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table


def size_text(count: int | None) -> str:
    """Format a number of bytes for people; "-" for None."""
    if count is None:
        return "-"
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def milliseconds(seconds: float) -> str:
    """Format with three decimals, down to microseconds."""
    return f"{seconds * 1e3:.3f}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table on standard output, as wide as the terminal; no word is cut or broken.

    Where the longest words of a row do not fit beside each other, the last columns follow below
    the others, with their names.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    console = Console(markup=False, highlight=False)
    content = list(zip(columns, *cells, strict=True))
    widths = [_longest_word(column) for column in content]
    room = console.width - sum(widths) - 3 * len(widths) - 1
    if room < 0:
        text = _in_two_lines(columns, cells, console.width)
        console.print(f"{title}\n{text}" if title else text, soft_wrap=True)
        return
    missing = [max(map(cell_len, it)) - width for it, width in zip(content, widths, strict=True)]
    for _ in range(min(room, sum(missing))):  # to the column that lacks most
        index = missing.index(max(missing))
        widths[index] += 1
        missing[index] -= 1
    table = Table(title=title or None, title_justify="left")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _longest_word(texts: Iterable[str]) -> int:
    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def _in_two_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Return the table as text: what fits in aligned columns, and the rest below each row."""
    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    fit = 1
    while fit < len(columns) and sum(widths[: fit + 1]) + 2 * fit <= width:
        fit += 1

    def aligned(row: Sequence[str]) -> str:
        pairs = zip(row[:fit], widths[:fit], strict=True)
        padded = [text + " " * (size - cell_len(text)) for text, size in pairs]
        return "  ".join(padded).rstrip()

    lines = [aligned(columns), "-" * min(sum(widths[:fit]) + 2 * (fit - 1), width)]
    for row in rows:
        lines.append(aligned(row))
        rest = zip(columns[fit:], row[fit:], strict=True)
        lines += [_below(f"{name}: {text}", width) for name, text in rest]
    return "\n".join(lines)


def _below(text: str, width: int) -> str:
    return textwrap.fill(
        text,
        max(width, 20),
        initial_indent=" " * 4,
        subsequent_indent=" " * 8,
        break_long_words=False,
        break_on_hyphens=False,
    )
