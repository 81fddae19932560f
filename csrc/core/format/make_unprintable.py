"""Prints the table of unprintable.inc.

From the Unicode data of the package unicodedata2 where it is installed, which is newer than
Python's own: names in a file may be from a later Python.
"""

import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata


def ranges() -> list[tuple[int, int]]:
    """Return first and last of each run of characters that are not printable."""
    found: list[tuple[int, int]] = []
    for code in range(sys.maxunicode + 1):
        if code == ord(" ") or unicodedata.category(chr(code))[0] not in "CZ":
            continue
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def table() -> str:
    """Return the text of the file."""
    cells = [f"{{{first:#x}, {last:#x}}}," for first, last in ranges()]
    lines, line = [], ""
    for cell in cells:
        if len(line) + len(cell) >= 100:
            lines.append(line)
            line = ""
        line += f" {cell}" if line else cell
    head = f"// Unicode {unicodedata.unidata_version}; written by make_unprintable.py.\n"
    return head + "\n".join([*lines, line]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
