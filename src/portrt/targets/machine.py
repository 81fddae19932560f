"""A machine, as far as it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from portrt.verdict import Verdict


@dataclass(frozen=True)
class Machine:
    """A machine. What is None, or not among `versions`, is not known and holds nothing back.

    Attributes:
        os: "linux", "windows" or "darwin".
        arch: "x86_64", "aarch64" and so on.
        compute_capability: Of its NVIDIA GPU, such as "8.9"; None for a machine without one.
        gpu_reason: Why there is no GPU to use, for messages.
        versions: Library -> version; "" for a library that is not installed.
        cuda: The newest CUDA that the GPU's driver knows, such as "12.4".
        lean_library: Version of a TensorRT -> path of a lean runtime library of that release, or
            no with the reason. Asked only where an engine needs one.
    """

    os: str | None = None
    arch: str | None = None
    compute_capability: str | None = None
    gpu_reason: str = "there is no NVIDIA GPU"
    versions: Mapping[str, str] = field(default_factory=dict)
    cuda: str | None = None
    lean_library: Callable[[str], str | Verdict] | None = field(default=None, compare=False)
