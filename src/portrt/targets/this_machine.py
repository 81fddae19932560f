"""Detection of this machine's properties, without importing torch or a vendor library."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from portrt.targets.backends import distributions
from portrt.targets.cpu_features import cpu_features
from portrt.targets.lean_library import find_lean_library
from portrt.targets.machine import Machine

# https://docs.nvidia.com/cuda/cuda-driver-api: CUdevice_attribute
_MAJOR, _MINOR = 75, 76


def this_machine() -> Machine:
    """Describe the machine and the Python environment that this code runs in."""
    driver = _driver()
    capability, gpu_reason = _gpu(driver)
    return Machine(
        os=platform.system().lower(),
        arch=arch_name(platform.machine()),
        compute_capability=capability,
        gpu_reason=gpu_reason,
        versions={name: _version(name, given) for name, given in distributions().items()},
        cuda=_cuda_of(driver),
        lean_library=find_lean_library,
        cpu_features=cpu_features(),
    )


def arch_name(machine: str) -> str:
    """Normalize a CPU name: Windows reports AMD64, macOS reports arm64."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())


def _version(module: str, distributions: Sequence[str]) -> str:
    """Return the version of an installed library; "" if it is not installed."""
    if not _is_installed(module):
        return ""
    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _driver() -> ctypes.CDLL | None:
    """Load the CUDA driver library; None if there is none."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def _cuda_of(driver: ctypes.CDLL | None) -> str | None:
    """Return the newest CUDA version that the driver supports."""
    version = ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _gpu(driver: ctypes.CDLL | None) -> tuple[str | None, str]:
    """Return the compute capability of the first GPU, or the reason why torch cannot use a GPU."""
    capability = None if driver is None else _capability(driver)
    if capability is None:
        return None, "there is no NVIDIA GPU here"
    if _torch_is_without_cuda():
        return None, "the torch that is installed here was built without CUDA"
    return capability, ""


def _capability(driver: ctypes.CDLL) -> str | None:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for attribute, value in ((_MAJOR, major), (_MINOR, minor)):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
    return f"{major.value}.{minor.value}"


def _torch_is_without_cuda() -> bool:
    """Read torch.version.cuda from the source text, because importing torch takes seconds."""
    try:
        spec = importlib.util.find_spec("torch")
        text = (Path(str(spec and spec.origin)).parent / "version.py").read_text(encoding="utf-8")
    except (ImportError, OSError, ValueError):
        return False
    return re.search(r"^cuda\b[^=\n]*= *None", text, re.MULTILINE) is not None
