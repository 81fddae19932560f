"""Builder of TensorRT engines; needs a GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import lru_cache

import torch

from portrt.cache.location import timing_cache_folder
from portrt.compiler.backends.base import BuilderInput, BuildInput
from portrt.compiler.backends.tensorrt.build import build_engine, supports
from portrt.compiler.backends.tensorrt.options import TensorRTOptions
from portrt.compiler.options.settings import Settings
from portrt.compiler.plan import Engine
from portrt.errors import BuildError
from portrt.targets.backends import BUILT_IN
from portrt.targets.this_machine import arch_name, this_machine
from portrt.verdict import Verdict

_INSTALL = BUILT_IN["tensorrt"].install
# Major version of the builder -> opsets that its parser reads, newest first.
# Source: TensorRT's release notes and the operator page of its ONNX parser.
_OPSETS = {8: (17,), 9: (20, 18, 17)}
_OPSETS_OF_LATER = (23, 20, 18)
_PROBE_S = 120
_PROBE = "import tensorrt; print('version', tensorrt.__version__)"


class TensorRTBuilder:
    """Builds on machines with a GPU, for GPUs of its compute capability."""

    name = "tensorrt"
    input: BuilderInput = "onnx"

    def can_build(self, settings: Settings | None = None) -> Verdict:
        if not torch.cuda.is_available():
            return Verdict.no(
                "no_gpu",
                "its builder measures kernels on a GPU, and torch has none available here",
                "build on a machine with the GPU that the engine is for",
            )
        if settings is not None and (python := settings.of(TensorRTOptions).builder_python):
            return Verdict.yes(f"{python} builds; whether it can is known only after a build")
        if importlib.util.find_spec("tensorrt") is None:
            return Verdict.no("library_missing", "the package tensorrt is not installed", _INSTALL)
        return Verdict.yes(f"TensorRT {this_machine().versions['tensorrt']}")

    def supports(self, node: torch.fx.Node) -> Verdict:
        return supports(node, self.name)

    def build(self, build_input: BuildInput, settings: Settings) -> Engine:
        options = settings.of(TensorRTOptions)
        version = builder_version(options.builder_python or sys.executable)
        major, minor = torch.cuda.get_device_capability()
        folder = timing_cache_folder(settings.cache_dir)
        built = build_engine(
            build_input,
            settings,
            library=self.name,
            install=_INSTALL,
            opsets=_OPSETS.get(int(version.split(".")[0] or 0), _OPSETS_OF_LATER),
            options={
                "exclude_lean_runtime": options.exclude_lean_runtime,
                "timing_cache": None if folder is None else str(folder),
                "gpu": torch.cuda.get_device_name().replace(" ", "-"),
            },
        )
        flags = built.result["flags"]
        requires = {
            "device": ["cuda"],
            "os": [built.result["os"]],
            "arch": [arch_name(built.result["arch"])],
            "tensorrt": built.result["version"],
            "version_compatible": "version_compatible" in flags,
        }
        if "hardware_compatible" in flags:
            requires["compute_capability_min"] = "8.0"
        else:
            requires["compute_capabilities"] = [f"{major}.{minor}"]
        if "version_compatible" in flags:
            outside = "exclude_lean_runtime" in flags
            requires["lean_runtime"] = "outside" if outside else "inside"
            requires["host_code"] = True
        return Engine(
            backend=self.name,
            data=built.data,
            build=built.build,
            requires=requires,
            weights=built.weights,
        )


@lru_cache
def builder_version(python: str) -> str:
    """Return the TensorRT version of a Python interpreter.

    Raises:
        BuildError: The interpreter cannot be started, or has no TensorRT.
    """
    try:
        done = subprocess.run(
            [python, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
        fields = (done.stdout.strip().splitlines() or [""])[-1].split()
    except (OSError, subprocess.TimeoutExpired) as err:
        raise BuildError(
            f"the engine builder cannot be started with {python}: {err}",
            "a Python interpreter that has the TensorRT bindings",
            "correct builder_python",
        ) from err
    if len(fields) != 2 or fields[0] != "version":
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise BuildError(
            f"{python} has no TensorRT: {last}",
            "a Python interpreter that has the TensorRT bindings",
            f"{_INSTALL}, in that environment",
        )
    return fields[1]
