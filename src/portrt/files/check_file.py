"""check: predicts from its zip directory and JSON whether a file runs on a machine. No torch."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portrt.arguments import as_names, check_names
from portrt.errors import SettingsError
from portrt.format.archive import Archive, engine_calls
from portrt.format.manifest import EngineSpec, Manifest
from portrt.runtime.choice import in_parts, source_verdict
from portrt.targets.backends import known_libraries
from portrt.targets.machine import Machine
from portrt.targets.requirements import check_requirements
from portrt.targets.this_machine import arch_name, this_machine
from portrt.targets.trust import HOST_CODE, NOT_TRUSTED, TRUSTS
from portrt.targets.versions import same_release
from portrt.verdict import Verdict

# From best to worst.
OUTCOMES = ("engine", "fallback", "cannot")
DEVICES = ("cuda", "cpu")

_OS = {"macos": "darwin", "win": "windows", "win32": "windows"}
_SYSTEMS = ("linux", "windows", "darwin")


@dataclass(frozen=True)
class Target:
    """A machine to check for. What is None, or not in `versions`, causes no rejection.

    Attributes:
        os: "linux", "windows" or "darwin".
        arch: "x86_64", "aarch64" and so on.
        compute_capability: Compute capability of its NVIDIA GPU, such as "8.9"; None for a machine
            without one.
        device: Device of the inputs, "cpu" or "cuda"; None takes the one with the best outcome.
        versions: Library -> version, such as "tensorrt_rtx": "1.7"; "none" where it is not
            installed. Where one of the three that run TensorRT engines is named, the others count
            as not installed.
        cuda: The newest CUDA version that the GPU's driver supports, such as "12.4".
        lean_library: Release of the TensorRT lean library file there; "none" where there is none.
        cpu_features: Instruction sets of its CPU, as Linux names them, such as "avx2".
    """

    os: str | None = None
    arch: str | None = None
    compute_capability: str | None = None
    device: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cuda: str | None = None
    lean_library: str | None = None
    cpu_features: Sequence[str] | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Parse text such as "os=linux,arch=x86_64,sm=89,tensorrt_rtx=1.7".

        Raises:
            SettingsError: A key is unknown or repeated, or has an invalid value.
        """
        values: dict[str, str] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            key, _, value = (piece.strip() for piece in part.partition("="))
            key = {"compute_capability": "sm"}.get(key, key)
            if key not in (*_PARSERS, *known_libraries()) or not value or key in values:
                raise _bad_target(text, f"{part!r} cannot be read")
            values[key] = value
        fields: dict[str, Any] = {
            name: parse(text, values.pop(key))
            for key, (name, parse) in _PARSERS.items()
            if key in values
        }
        for library, version in values.items():
            if version != "none":
                _parse_version(text, library, version)
        return cls(**fields, versions=values)

    def facts(self) -> Machine:
        """Return the machine that requirements are checked against."""
        versions = {name: "" if v == "none" else v for name, v in self.versions.items()}
        gpu_reason = "the target has no GPU (sm=...)"
        lean = None if self.lean_library is None else self._lean_library
        features = None if self.cpu_features is None else frozenset(self.cpu_features)
        return Machine(
            self.os,
            self.arch,
            self.compute_capability,
            gpu_reason,
            versions,
            self.cuda,
            lean,
            features,
        )

    def _lean_library(self, built: str) -> str | Verdict:
        there = str(self.lean_library)
        if there != "none" and same_release(built, there):
            return there
        return Verdict.no(
            "library_missing" if there == "none" else "library_version",
            f"it needs a lean runtime library of tensorrt {built}, and {there} is there",
            "install one there, and set PORTRT_TENSORRT_LEAN to its path",
        )

    def __str__(self) -> str:
        parts = {
            "os": self.os,
            "arch": self.arch,
            "sm": self.compute_capability and self.compute_capability.replace(".", ""),
            "device": self.device,
            "cuda": self.cuda,
            "lean_library": self.lean_library,
            "cpu": "+".join(self.cpu_features or ()),
            **self.versions,
        }
        return (
            ",".join(f"{name}={value}" for name, value in parts.items() if value) or "any machine"
        )


def _bad_target(text: str, fact: str) -> SettingsError:
    keys = ", ".join((*_PARSERS, *known_libraries()))
    return SettingsError(
        f"the target {text!r} is not understood: {fact}",
        f"KEY=VALUE,... with the keys {keys}, each once",
        "write it as in os=linux,arch=x86_64,sm=89,tensorrt_rtx=1.7",
    )


def _parse_os(text: str, value: str) -> str:
    name = _OS.get(value.lower(), value.lower())
    if name not in _SYSTEMS:
        raise _bad_target(text, f"os={value!r} is none of {', '.join(_SYSTEMS)}")
    return name


def _parse_arch(_text: str, value: str) -> str:
    return arch_name(value)


def _parse_capability(text: str, value: str) -> str:
    found = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", value)
    if not found:
        raise _bad_target(text, f"sm={value!r} is no compute capability such as 89 or 8.9")
    return f"{found[1]}.{found[2]}"


def _parse_device(text: str, value: str) -> str:
    if value not in DEVICES:
        raise _bad_target(text, f"device={value!r} is none of {', '.join(DEVICES)}")
    return value


def _parse_version(text: str, key: str, value: str) -> str:
    if not re.match(r"\d", value):
        raise _bad_target(text, f"{key}={value!r} is no version")
    return value


def _parse_cuda(text: str, value: str) -> str:
    return _parse_version(text, "cuda", value)


def _parse_lean_library(text: str, value: str) -> str:
    return value if value == "none" else _parse_version(text, "lean_library", value)


def _parse_features(text: str, value: str) -> tuple[str, ...]:
    names = tuple(value.lower().split("+"))
    if not all(re.fullmatch(r"[a-z]\w*", name) for name in names):
        raise _bad_target(text, f"cpu={value!r} is no list such as avx2+fma")
    return names


_PARSERS: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    "os": ("os", _parse_os),
    "arch": ("arch", _parse_arch),
    "sm": ("compute_capability", _parse_capability),
    "device": ("device", _parse_device),
    "cuda": ("cuda", _parse_cuda),
    "lean_library": ("lean_library", _parse_lean_library),
    "cpu": ("cpu_features", _parse_features),
}


@dataclass(frozen=True)
class EngineVerdict:
    """One stored engine.

    Attributes:
        backend: Name of the backend.
        verdict: Yes, or no with the reason and the remedy.
    """

    backend: str
    verdict: Verdict


@dataclass(frozen=True)
class BlockVerdict:
    """One block.

    Attributes:
        name: Name of the block.
        outcome: "engine", "fallback" (its source runs in PyTorch) or "cannot".
        runs_as: Backend of the engine that runs it, "eager", or "".
        engines: Every stored engine, in order of preference.
        source: Whether PyTorch may run its source.
    """

    name: str
    outcome: str
    runs_as: str
    engines: tuple[EngineVerdict, ...]
    source: Verdict


@dataclass(frozen=True)
class FileVerdict:
    """A file on one machine.

    Attributes:
        path: Path of the file.
        target: Description of the machine.
        device: Device of the inputs, "cpu" or "cuda".
        outcome: The worst of its blocks: "engine", "fallback" or "cannot". A program without
            blocks runs in PyTorch: "fallback".
        blocks: In the order of their calls.
    """

    path: str
    target: str
    device: str
    outcome: str
    blocks: tuple[BlockVerdict, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return dataclasses.asdict(self)


def check(
    path: str | os.PathLike[str],
    target: Target | str | None = None,
    *,
    trust: Sequence[str] | str | None = None,
) -> FileVerdict:
    """Predict whether a file will run on a machine, and on which backends.

    Reads the zip directory and JSON, and not the engines, whatever their size. No engine is opened
    or run: a yes means that no requirement is known to fail.

    Args:
        path: The file.
        target: The machine, as a `Target` or as text for `Target.parse`; None is this machine,
            without environment variables such as PORTRT_FALLBACK.
        trust: The `trust` that `load` will be called with.

    Raises:
        LoadError: The file is no torch.export archive, or damaged.
        PackageError: A manifest in it is malformed.
        SettingsError: The target cannot be read, or the trust is unknown.
    """
    is_trusted = as_names(trust, "trust") or ()
    check_names("trust", is_trusted, TRUSTS)
    trusted = HOST_CODE in is_trusted
    if isinstance(target, str):
        target = Target.parse(target)
    manifests = [call.manifest for call in engine_calls(Archive(os.fspath(path)))]
    facts = this_machine() if target is None else target.facts()
    name = _describe(facts) if target is None else str(target)
    device = None if target is None else target.device
    devices = [device] if device else _devices(facts)
    found = [_file(str(path), name, kind, manifests, facts, trusted) for kind in devices]
    return min(found, key=lambda verdict: OUTCOMES.index(verdict.outcome))


def _devices(facts: Machine) -> list[str]:
    """List the devices of inputs to try; of equal outcomes the first is reported."""
    return list(DEVICES) if facts.compute_capability else ["cpu"]


def _describe(facts: Machine) -> str:
    parts = [f"os={facts.os}", f"arch={facts.arch}"]
    if facts.compute_capability:
        parts.append(f"sm={facts.compute_capability.replace('.', '')}")
    parts += [f"cuda={facts.cuda}"] if facts.cuda else []
    parts += [f"{name}={version or 'none'}" for name, version in facts.versions.items()]
    return f"this machine ({','.join(parts)})"


def _file(
    path: str, target: str, device: str, manifests: list[Manifest], facts: Machine, trusted: bool
) -> FileVerdict:
    blocks = tuple(_block(manifest, facts, device, trusted) for manifest in manifests)
    worst = max((OUTCOMES.index(block.outcome) for block in blocks), default=1)
    return FileVerdict(path, target, device, OUTCOMES[worst], blocks)


def _block(manifest: Manifest, facts: Machine, device: str, trusted: bool) -> BlockVerdict:
    engines = tuple(
        EngineVerdict(
            engine.backend, in_parts(engine, _engine(engine, manifest, facts, device, trusted))
        )
        for engine in manifest.engines
    )
    source = _source(manifest)
    runs = next((engine.backend for engine in engines if engine.verdict), "")
    if runs:
        return BlockVerdict(manifest.name, "engine", runs, engines, source)
    outcome, runs = ("fallback", "eager") if source else ("cannot", "")
    return BlockVerdict(manifest.name, outcome, runs, engines, source)


def _engine(
    engine: EngineSpec, manifest: Manifest, facts: Machine, device: str, trusted: bool
) -> Verdict:
    allowed = manifest.policy.get("engines")
    if allowed is not None and engine.backend not in allowed:
        listed = ", ".join(map(str, allowed)) or "no engine"
        return Verdict.no("policy", f"the policy allows {listed}", "load it with engines=...")
    verdict = check_requirements(engine.backend, engine.requires, facts, device)
    own = engine.requires["device"]
    if device in own:
        refused = engine.requires.get("host_code") and not trusted
        return NOT_TRUSTED if verdict and refused else verdict
    # The reason on the engine's own device is more useful than that this device is another one.
    elsewhere = check_requirements(engine.backend, engine.requires, facts, str(own[0]))
    return verdict if elsewhere else elsewhere


def _source(manifest: Manifest) -> Verdict:
    return source_verdict(manifest.source is not None, manifest.policy.get("fallback"))
