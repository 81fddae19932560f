"""Keys of the `meta` of a compiled module."""

from __future__ import annotations

# Its program, for portrt.save.
PROGRAM = "portrt_program"
