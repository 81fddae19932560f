"""Options of the backends `tensorrt` and `tensorrt_rtx`. Imports no torch."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from portrt.compiler.options import values
from portrt.compiler.options.fields import BackendOptions, documented, setting

TILING_LEVELS = ("none", "fast", "moderate", "full")

_VERSION_QUERY = (
    "import importlib.metadata as m;"
    "print(sorted('%s %s' % (d.metadata['Name'], d.version) for d in m.distributions()"
    " if (d.metadata['Name'] or '').lower().startswith('tensorrt')))"
)


@documented
@dataclass(frozen=True, kw_only=True)
class TensorRTOptions(BackendOptions):
    """What the builders of TensorRT and TensorRT-RTX engines can be given."""

    optimization_level: int | None = setting(
        None,
        help="Builder optimization level, 0 to 5.",
        unset="the builder's default",
        rebuilds=True,
        parse=values.integer(0, 5, optional=True),
    )
    workspace_size: int = setting(
        0,
        help="Scratch memory of an engine in bytes.",
        unset="the builder's default",
        rebuilds=True,
        parse=values.integer(0),
    )
    disable_tf32: bool = setting(
        False, help="Multiply float32 in float32, not in TF32.", rebuilds=True, parse=values.flag
    )
    sparse_weights: bool = setting(
        False,
        help="Allow kernels for weights of which 2 of 4 are 0.",
        rebuilds=True,
        parse=values.flag,
    )
    max_aux_streams: int | None = setting(
        None,
        help="Most CUDA streams that an engine runs on, besides the caller's.",
        unset="the builder's choice",
        rebuilds=True,
        parse=values.integer(0, optional=True),
    )
    num_avg_timing_iters: int = setting(
        1,
        help="Runs of each kernel that the builder takes the average time of.",
        rebuilds=True,
        parse=values.integer(1),
    )
    tiling_optimization_level: str = setting(
        "none",
        help='Effort on tiling across layers: "none", "fast", "moderate" or "full".',
        rebuilds=True,
        parse=values.one_of(TILING_LEVELS),
    )
    l2_limit_for_tiling: int = setting(
        -1,
        help="L2 cache in bytes that tiling may use.",
        unset="the builder's default",
        rebuilds=True,
        parse=values.integer(-1),
    )
    version_compatible: bool = setting(
        False, help="Build an engine that later versions of TensorRT can run.", rebuilds=True
    )
    exclude_lean_runtime: bool = setting(
        False,
        help="Leave the lean runtime (30 MB or more) out of a version-compatible engine.",
        rebuilds=True,
    )
    strip_engine_weights: bool = setting(
        False,
        help="Leave weights out of the engine; opening it reads them from the file's one copy.",
        rebuilds=True,
    )
    hardware_compatible: bool = setting(
        False,
        help="Build a TensorRT engine for other GPU architectures too: Ampere and newer.",
        rebuilds=True,
    )
    target_compute_capabilities: tuple[str, ...] = setting(
        (),
        help='GPUs of a TensorRT-RTX engine, such as "8.9" or "sm_89".',
        unset="8.0 and newer",
        rebuilds=True,
        parse=values.compute_capabilities,
    )
    builder_python: str | None = setting(
        None,
        help="Python interpreter that runs the engine builder, for a TensorRT installed there.",
        unset="this one",
        rebuilds=True,
    )
    plugins: tuple[str, ...] = setting(
        (),
        help="Shared libraries with TensorRT plugins that the builder loads.",
        rebuilds=True,
        parse=values.plugin_files,
    )

    def key_parts(self) -> dict[str, Any]:
        """Digests of the plugins, and the TensorRT packages of another interpreter."""
        digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.plugins]
        parts: dict[str, Any] = {"plugins": digests}
        if self.builder_python is not None:
            parts["builder packages"] = _versions_of(self.builder_python)
        return parts


@lru_cache
def _versions_of(python: str) -> str:
    """The TensorRT packages of another interpreter."""
    from portrt.compiler.building.fingerprint import UnknownValueError

    try:
        done = subprocess.run(
            [python, "-c", _VERSION_QUERY], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as err:
        raise UnknownValueError(f"the packages of {python} are not known: {err}") from err
    return done.stdout.strip()
