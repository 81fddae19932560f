"""What several modules of the run side know of this process. Imports nothing."""

from __future__ import annotations

from typing import Any

# ids of a block's blobs -> the block that was last called with them; `runtime/op.py` owns it.
BLOCKS: dict[tuple[int, ...], Any] = {}

# What `use_python_runtime` of `compile` chose: id of a program's blob -> runtime.
PROGRAM_RUNTIMES: dict[int, str] = {}
