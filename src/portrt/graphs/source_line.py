"""Source line of the user's model that a node comes from, without paths of the machine."""

from __future__ import annotations

import re
from pathlib import PurePath, PureWindowsPath

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>.+)$')
_MAX_CHARS = 160


def source_line(stack_trace: str | None) -> str:
    """Return "model.py:12 in forward: y = self.first(x)" of the innermost frame outside torch.

    Files of installed packages have their path in site-packages, other files only their name.

    Args:
        stack_trace: As Python formats it, outermost frame first.

    Returns:
        At most 160 characters; "" without a frame.
    """
    found = ""
    lines = (stack_trace or "").splitlines()
    for index, text in enumerate(lines):
        frame = _FRAME.match(text)
        if frame is None:
            continue
        if frame["file"].startswith("<eval_with_key>"):
            continue  # code that fx generated from a graph
        place = _short(frame["file"])
        if place.startswith("torch/") and found:
            continue
        below = lines[index + 1].strip() if index + 1 < len(lines) else ""
        code = f": {below}" if below and not _FRAME.match(below) else ""
        found = f"{place}:{frame['line']} in {frame['name'].strip()}{code}"
    return found[:_MAX_CHARS]


def _short(file: str) -> str:
    path = PureWindowsPath(file) if "\\" in file else PurePath(file)
    parts = path.parts
    for home in ("site-packages", "dist-packages"):
        if home in parts:
            return "/".join(parts[parts.index(home) + 1 :])
    return path.name
