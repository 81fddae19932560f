"""Results of a comparison in pairs as a JSON file, with what they were measured with."""

from __future__ import annotations

import datetime as dt
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def keep(path: Path, pairs: int, **figures: Any) -> None:
    """Write figures, with the date, the machine, the threads and the versions."""
    found = {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores",
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in ("torch", "onnxruntime")},
        "pairs": pairs,
        **figures,
    }
    path.write_text(json.dumps(found, indent=2) + "\n")
