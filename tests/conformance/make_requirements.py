"""Cases of `conformance/requirements.json`: codes by hand, from docs/format.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Case = dict[str, Any]

GPU = {"os": "linux", "arch": "x86_64", "compute_capability": "8.9"}
CPU = {"os": "linux", "arch": "x86_64"}
ORT = {"device": ["cpu"], "onnxruntime": "1.23"}
RTX = {"device": ["cuda"], "compute_capabilities": ["8.6", "8.9"], "tensorrt_rtx": "1.7.1.116"}
TRT = {"device": ["cuda"], "compute_capabilities": ["8.9"], "tensorrt": "10.13.3.9"}
CODE = {
    "device": ["cpu"],
    "os": ["linux"],
    "arch": ["x86_64"],
    "cpu_features": ["avx2", "fma"],
    "torch": "2.13.0",
    "host_code": True,
}
LEAN = {**TRT, "version_compatible": True}
INSIDE = {**LEAN, "lean_runtime": "inside"}
OUTSIDE = {**LEAN, "lean_runtime": "outside"}


def case(
    name: str,
    backend: str,
    requires: dict[str, Any],
    machine: dict[str, Any],
    code: str,
    device: str = "cuda",
) -> Case:
    return {
        "name": name,
        "backend": backend,
        "requires": requires,
        "machine": machine,
        "device": device,
        "code": code,
    }


def with_versions(**versions: str) -> dict[str, Any]:
    return {**GPU, "versions": versions}


def platforms() -> Iterator[Case]:
    def ort(name: str, code: str, machine: dict[str, Any] = CPU, **more: Any) -> Case:
        return case(name, "onnxruntime", {**ORT, **more}, machine, code, "cpu")

    yield ort("fits", "ok")
    yield ort("nothing is known of the machine", "ok", {})
    yield ort("unknown fields are ignored", "ok", memory=5)
    yield ort("this os", "ok", os=["windows", "linux"])
    yield ort("another os", "wrong_platform", os=["windows"])
    yield ort("any os", "ok", os=[])
    yield ort("an os and a machine of which it is not known", "ok", {}, os=["windows"])
    yield ort("this arch", "ok", arch=["aarch64", "x86_64"])
    yield ort("another arch", "wrong_platform", arch=["aarch64"])
    yield ort("os and arch", "ok", os=["linux"], arch=["x86_64"])
    yield ort("os alone fits", "wrong_platform", os=["linux"], arch=["aarch64"])
    yield ort("part of an os is not that os", "wrong_platform", {"os": "lin"}, os=["linux"])
    yield case("cuda tensors for the CPU", "onnxruntime", ORT, GPU, "wrong_device")
    yield case("cpu tensors for a GPU", "tensorrt_rtx", RTX, GPU, "wrong_device", "cpu")
    both = {**ORT, "device": ["cuda", "cpu"]}
    yield case("one of two devices", "onnxruntime", both, CPU, "ok", "cpu")
    yield case("unknown backend", "of_tomorrow", ORT, CPU, "unknown_backend", "cpu")
    yield case("a backend's name in capitals", "ONNXRuntime", ORT, CPU, "unknown_backend", "cpu")
    windows = {**RTX, "os": ["windows"]}
    yield case("device before platform", "tensorrt_rtx", windows, GPU, "wrong_device", "cpu")
    yield case("platform before GPU", "tensorrt_rtx", windows, CPU, "wrong_platform")


def gpus() -> Iterator[Case]:
    def rtx(name: str, code: str, machine: dict[str, Any] | None = None, **more: Any) -> Case:
        return case(name, "tensorrt_rtx", {**RTX, **more}, machine or GPU, code)

    yield rtx("a GPU of the list", "ok")
    yield rtx("no GPU", "no_gpu", CPU)
    yield rtx("nothing is known of the GPU's machine", "no_gpu", {"os": "linux"})
    yield rtx("an older GPU", "wrong_gpu", {"compute_capability": "7.5"})
    yield rtx("a newer GPU", "wrong_gpu", {"compute_capability": "12.0"})
    yield rtx("between those of the list", "wrong_gpu", {"compute_capability": "8.7"})
    yield rtx("any GPU", "ok", {"compute_capability": "7.5"}, compute_capabilities=[])
    for least, found, code in (
        ("8.0", "8.0", "ok"),
        ("8.0", "8.9", "ok"),
        ("8.0", "12.0", "ok"),
        ("8.0", "7.5", "wrong_gpu"),
        ("8.6", "8.0", "wrong_gpu"),
        ("10.0", "9.0", "wrong_gpu"),
        ("9.0", "10.0", "ok"),
    ):
        requires = {"device": ["cuda"], "compute_capability_min": least}
        name = f"from {least}, and {found}"
        yield case(name, "tensorrt_rtx", requires, {"compute_capability": found}, code)
    yield rtx("of the list and not new enough", "wrong_gpu", compute_capability_min="9.0")
    for built, driver, code in (
        ("12.1", "12.1", "ok"),
        ("12.9", "12.1", "ok"),
        ("12.1", "13.0", "ok"),
        ("12.1", "11.8", "driver_too_old"),
        ("13.0", "12.9", "driver_too_old"),
        ("9.2", "12.0", "ok"),
    ):
        machine = {**GPU, "cuda": driver}
        yield rtx(f"CUDA {built}, and a driver of {driver}", code, machine, cuda=built)
    yield rtx("CUDA, and a driver that is not known", "ok", cuda="12.1")
    yield rtx("no CUDA named, and an old driver", "ok", {**GPU, "cuda": "10.0"})
    old = {**with_versions(tensorrt_rtx="1.5"), "cuda": "11.8"}
    yield rtx("driver before library", "driver_too_old", old, cuda="12.1")
    yield rtx("GPU before driver", "wrong_gpu", {**old, "compute_capability": "7.5"}, cuda="12.1")
    ort = {**ORT, "compute_capabilities": ["8.9"], "cuda": "12.1"}
    yield case("the GPU does not count on the CPU", "onnxruntime", ort, CPU, "ok", "cpu")


def libraries() -> Iterator[Case]:
    for found, code in (
        ("1.23", "ok"),
        ("1.23.0", "ok"),
        ("1.23.2", "ok"),
        ("1.24", "ok"),
        ("1.100", "ok"),
        ("2", "ok"),
        ("1", "ok"),
        ("1.32.dev20", "ok"),
        ("1.22.9", "library_version"),
        ("1.3", "library_version"),
        ("0.99", "library_version"),
        ("none", "library_missing"),
    ):
        machine = {**CPU, "versions": {"onnxruntime": found}}
        yield case(f"onnxruntime 1.23, and {found}", "onnxruntime", ORT, machine, code, "cpu")
    own = {"device": ["cpu"], "openvino": "2026.4"}
    for found, code in (
        ("2026.4.1", "ok"),
        ("2027.0", "ok"),
        ("2026.3.9", "library_version"),
        ("none", "library_missing"),
    ):
        machine = {**CPU, "versions": {"openvino": found, "onnxruntime": "1.32.0"}}
        yield case(f"openvino 2026.4, and {found}", "openvino", own, machine, code, "cpu")
    absent = {"device": ["cpu"]}
    for found, code in (("1.0", "ok"), ("none", "library_missing")):
        machine = {**CPU, "versions": {"onnxruntime": found}}
        yield case(f"any onnxruntime, and {found}", "onnxruntime", absent, machine, code, "cpu")
    other = {**CPU, "versions": {"tensorrt_rtx": "none"}}
    yield case("the library of others", "onnxruntime", ORT, other, "ok", "cpu")
    for found, code in (
        ("1.7.1.116", "ok"),
        ("1.7.1.999", "ok"),
        ("1.7.1", "ok"),
        ("1.7", "ok"),
        ("1.7.0", "library_version"),
        ("1.7.2.1", "library_version"),
        ("1.8", "library_version"),
        ("2.7.1", "library_version"),
        ("none", "library_missing"),
    ):
        machine = with_versions(tensorrt_rtx=found)
        yield case(f"tensorrt_rtx 1.7.1.116, and {found}", "tensorrt_rtx", RTX, machine, code)
    any_release = {"device": ["cuda"]}
    machine = with_versions(tensorrt_rtx="1.5")
    yield case("any tensorrt_rtx", "tensorrt_rtx", any_release, machine, "ok")


def machine_code() -> Iterator[Case]:
    def code(name: str, found: str, machine: dict[str, Any] = CPU, **more: Any) -> Case:
        return case(name, "inductor", {**CODE, **more}, machine, found, "cpu")

    for version, found in (
        ("2.13.0", "ok"),
        ("2.13.0+cpu", "ok"),
        ("2.13.0+cu130", "ok"),
        ("2.13", "ok"),
        ("2.13.1", "library_version"),
        ("2.12.0", "library_version"),
        ("2.14.0", "library_version"),
        ("none", "library_missing"),
    ):
        machine = {**CPU, "versions": {"torch": version}}
        yield code(f"torch 2.13.0, and {version}", found, machine)
    for features, found in (
        (["avx2", "fma"], "ok"),
        (["avx2", "avx512f", "fma"], "ok"),
        (["avx2"], "wrong_platform"),
        (["avx", "fma"], "wrong_platform"),
        ([], "wrong_platform"),
    ):
        machine = {**CPU, "cpu_features": features}
        yield code(f"machine code for avx2 and fma, and {features}", found, machine)
    yield code("machine code, and a CPU that is not known", "ok")
    yield code("machine code for any CPU", "ok", {**CPU, "cpu_features": []}, cpu_features=[])
    arm = {"os": "linux", "arch": "aarch64", "cpu_features": ["asimd"]}
    yield code("machine code, and another arch", "wrong_platform", arm)
    old = {**CPU, "cpu_features": ["avx"], "versions": {"torch": "2.12.0"}}
    yield code("the CPU before the library", "wrong_platform", old)
    gpu = {**CODE, "device": ["cuda"], "compute_capabilities": ["8.9"]}
    for machine, found in (
        (GPU, "ok"),
        ({**GPU, "compute_capability": "9.0"}, "wrong_gpu"),
        (CPU, "no_gpu"),
    ):
        sm = machine.get("compute_capability")
        yield case(f"machine code for the GPU 8.9, and {sm}", "inductor", gpu, machine, found)
    ort = {**ORT, "cpu_features": ["avx2"]}
    machine = {**CPU, "cpu_features": ["avx"]}
    yield case("a CPU for any backend", "onnxruntime", ort, machine, "wrong_platform", "cpu")


def tensorrt() -> Iterator[Case]:
    def trt(
        name: str, requires: dict[str, Any], machine: dict[str, Any], code: str, library: str = ""
    ) -> Case:
        found = case(name, "tensorrt", requires, machine, code)
        return {**found, "library": library} if library else found

    yield trt("no version known", TRT, GPU, "ok")
    for built in (None, "", "10", "ten"):
        requires = {key: value for key, value in TRT.items() if key != "tensorrt"}
        requires |= {} if built is None else {"tensorrt": built}
        machine = with_versions(tensorrt="10.13.3.9")
        yield trt(f"built by {built!r}", requires, machine, "requirement_missing")
    for found, code in (
        ("10.13.3.9", "ok"),
        ("10.13.3", "ok"),
        ("10.13.3.10", "library_version"),
        ("10.13.2.6", "library_version"),
        ("10.14.1.48", "library_version"),
        ("11.4.1.5", "library_version"),
        ("none", "library_missing"),
    ):
        library = "tensorrt" if code == "ok" else ""
        yield trt(f"exact, and {found}", TRT, with_versions(tensorrt=found), code, library)
    for name in ("tensorrt_lean", "tensorrt_dispatch"):
        machine = with_versions(**{name: "10.13.3.9"})
        yield trt(f"exact, and {name} alone", TRT, machine, "library_version")
    false = {**TRT, "version_compatible": False, "lean_runtime": "inside"}
    newer = with_versions(tensorrt="10.14.1.48")
    yield trt("not version compatible, whatever else", false, newer, "library_version")
    yield from versions_inside(trt)
    yield from versions_outside(trt)


def versions_inside(trt: Any) -> Iterator[Case]:
    for built, found, code in (
        ("10.13.3.9", "10.13.3.9", "ok"),
        ("10.13.3.9", "10.13.3.10", "ok"),
        ("10.13.3.9", "10.14.1.48", "ok"),
        ("10.13.3.9", "10.13.2.6", "library_version"),
        ("10.13.3.9", "10.0.0.6", "library_version"),
        ("10.13.3.9", "11.0.0.1", "ok"),
        ("10.13.3.9", "12.0.0.1", "library_version"),
        ("10.13.3.9", "9.3.0.1", "library_version"),
        ("8.6.0.12", "8.6.1.6", "ok"),
        ("8.6.0.12", "8.5.3.1", "library_version"),
        ("8.6.0.12", "9.0.0.1", "library_version"),
        ("8.6.0.12", "10.0.0.6", "ok"),
        ("8.6.0.12", "11.0.0.1", "library_version"),
        ("9.3.0.1", "10.0.0.6", "ok"),
        ("9.3.0.1", "11.0.0.1", "library_version"),
        ("11.4.1.5", "11.5", "ok"),
        ("11.4.1.5", "12.0", "library_version"),
    ):
        for name in ("tensorrt", "tensorrt_lean", "tensorrt_dispatch"):
            requires = {**INSIDE, "tensorrt": built}
            machine = with_versions(**{name: found})
            library = name if code == "ok" else ""
            yield trt(
                f"lean inside of {built}, and {name} {found}", requires, machine, code, library
            )
    machine = with_versions(tensorrt="10.0.0.6", tensorrt_lean="9.0", tensorrt_dispatch="10.14.1")
    yield trt("inside: the first that fits", INSIDE, machine, "ok", "tensorrt_dispatch")
    machine = with_versions(tensorrt="10.14.1", tensorrt_dispatch="10.14.1")
    yield trt("inside: the whole library first", INSIDE, machine, "ok", "tensorrt")
    none = with_versions(tensorrt="none", tensorrt_lean="none", tensorrt_dispatch="none")
    yield trt("inside: none of the three", INSIDE, none, "library_missing")
    yield trt("inside: nothing known", INSIDE, GPU, "ok", "tensorrt")


def versions_outside(trt: Any) -> Iterator[Case]:
    def machine(lean: str | None = None, **versions: str) -> dict[str, Any]:
        found = with_versions(**versions)
        return found if lean is None else {**found, "lean_library": lean}

    own = machine("none", tensorrt="10.13.3.9")
    yield trt("outside: its own release contains it", OUTSIDE, own, "ok", "tensorrt")
    own = machine("none", tensorrt="10.13.3.10")
    yield trt("outside: another build of its release", OUTSIDE, own, "ok", "tensorrt")
    own = machine("none", tensorrt_lean="10.13.3.9")
    yield trt("outside: the lean runtime of its release", OUTSIDE, own, "ok", "tensorrt_lean")
    other = machine("10.13.3", tensorrt_lean="10.14.1")
    yield trt("outside: another lean runtime alone", OUTSIDE, other, "library_version")
    for name in ("tensorrt", "tensorrt_dispatch"):
        newer = {name: "10.14.1"}
        yield trt(
            f"outside: {name}, and its library", OUTSIDE, machine("10.13.3", **newer), "ok", name
        )
        what = f"outside: {name}, and no library"
        yield trt(what, OUTSIDE, machine("none", **newer), "library_missing")
        what = f"outside: {name}, and a library of another release"
        yield trt(what, OUTSIDE, machine("10.13.2", **newer), "library_version")
        what = f"outside: {name}, and libraries that are not known"
        yield trt(what, OUTSIDE, machine(**newer), "ok", name)
        what = f"outside: {name} that is too old"
        yield trt(what, OUTSIDE, machine("10.13.3", **{name: "10.0.0.6"}), "library_version")
        what = f"outside: {name} of the next major version"
        yield trt(what, OUTSIDE, machine("10.13.3", **{name: "11.0.0.1"}), "ok", name)
    dispatch = machine("none", tensorrt_dispatch="10.13.3.9")
    yield trt("outside: dispatch contains none", OUTSIDE, dispatch, "library_missing")
    both = machine("10.13.3", tensorrt_lean="10.14.1", tensorrt_dispatch="10.14.1")
    yield trt("outside: dispatch beside a lean one", OUTSIDE, both, "ok", "tensorrt_dispatch")
    yield trt(
        "neither inside nor outside is outside",
        LEAN,
        machine("none", tensorrt="11.0"),
        "library_missing",
    )
    odd = {**LEAN, "lean_runtime": "elsewhere"}
    yield trt(
        "an unknown place is outside", odd, machine("none", tensorrt="11.0"), "library_missing"
    )
    eight = {**OUTSIDE, "tensorrt": "8.6.0.12"}
    yield trt("outside: 8 on 10", eight, machine("8.6.0", tensorrt="10.14.1"), "ok", "tensorrt")
    yield trt("outside: 8 on 11", eight, machine("8.6.0", tensorrt="11.0"), "library_version")
    yield trt("outside: nothing known", OUTSIDE, GPU, "ok", "tensorrt")


def cases() -> list[Case]:
    return [*platforms(), *gpus(), *libraries(), *machine_code(), *tensorrt()]
