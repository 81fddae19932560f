"""Description of a machine; it may be incomplete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from portrt.verdict import Verdict


@dataclass(frozen=True)
class Machine:
    """A machine. None, or a library missing in `versions`, means unknown and causes no rejection.

    Attributes:
        os: "linux", "windows" or "darwin".
        arch: "x86_64", "aarch64" and so on.
        cpu_features: Instruction sets of its CPU, as Linux names them.
        compute_capability: Compute capability of its NVIDIA GPU, such as "8.9"; None for a machine
            without a GPU.
        gpu_reason: Reason why no GPU is available, for messages.
        versions: Library -> version; "" for a library that is not installed.
        cuda: Newest CUDA version that the GPU's driver supports, such as "12.4".
        lean_library: Function from a TensorRT version to the path of a lean runtime library of that
            release, or a no with the reason. Called only if an engine needs one.
    """

    os: str | None = None
    arch: str | None = None
    compute_capability: str | None = None
    gpu_reason: str = "there is no NVIDIA GPU"
    versions: Mapping[str, str] = field(default_factory=dict)
    cuda: str | None = None
    lean_library: Callable[[str], str | Verdict] | None = field(default=None, compare=False)
    cpu_features: frozenset[str] | None = None
