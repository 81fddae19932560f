"""Cases of `conformance/policies.json`: choices by hand, from docs/format.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Case = dict[str, Any]

DEFAULT = {
    "fallback": "eager",
    "engines": None,
    "rebuild": "never",
    "trust": None,
    "cuda_graphs": None,
    "check": "off",
    "select": "first",
    "background": False,
}
ORT = {"backend": "onnxruntime", "devices": ["cpu"], "machine": "ok"}
RTX = {"backend": "tensorrt_rtx", "devices": ["cuda"], "machine": "ok"}
TRT = {"backend": "tensorrt", "devices": ["cuda"], "machine": "ok"}
OLD = {**ORT, "machine": "library_version"}
CODED = {**TRT, "host_code": True}


def case(
    name: str,
    choice: Sequence[str],
    *codes: str,
    engines: Sequence[Case] = (ORT,),
    stored: Case | None = None,
    environment: dict[str, str] | None = None,
    context: Sequence[Case] = (),
    device: str = "cpu",
    source: bool = True,
    builders: Sequence[str] = (),
    effective: Case | None = None,
    compiler: bool = False,
) -> Case:
    kind, detail = choice
    what = {"error": "code"}.get(kind, "name")
    return {
        "name": name,
        "stored": stored or {},
        "environment": environment or {},
        "context": list(context),
        "device": device,
        "engines": list(engines),
        "source": source,
        "builders": list(builders),
        "effective": {**DEFAULT, **(effective or {})},
        "codes": list(codes),
        "choice": {"kind": kind, what: detail},
        **({"compiler": True} if compiler else {}),
    }


ENGINE = ("engine", "onnxruntime")
EAGER = ("eager", "eager")
REFUSED = ("error", "policy")


def engines() -> Iterator[Case]:
    yield case("an engine that fits", ENGINE, "ok")
    yield case("no engine", EAGER, engines=())
    yield case("an engine that does not fit", EAGER, "library_version", engines=(OLD,))
    first = {**RTX, "devices": ["cpu"]}
    yield case("the first of two", ("engine", "tensorrt_rtx"), "ok", "ok", engines=(first, ORT))
    codes = ("library_version", "ok")
    yield case("the second, of one backend", ENGINE, *codes, engines=(OLD, ORT))
    yield case("an engine of another device", ENGINE, "wrong_device", "ok", engines=(RTX, ORT))
    on_gpu = ("ok", "wrong_device")
    choice = ("engine", "tensorrt_rtx")
    yield case("the other device", choice, *on_gpu, engines=(RTX, ORT), device="cuda")
    unknown = {"backend": "of_tomorrow", "devices": ["cpu"], "machine": "unknown_backend"}
    yield case("an unknown backend", ENGINE, "unknown_backend", "ok", engines=(unknown, ORT))
    wrong = {**ORT, "devices": ["cuda"], "machine": "no_gpu"}
    yield case("device before machine", EAGER, "wrong_device", engines=(wrong,))
    no_source = {"engines": (OLD,), "source": False}
    yield case(
        "no engine and no source", ("error", "source_missing"), "library_version", **no_source
    )
    yield case("an engine without a source", ENGINE, "ok", source=False)


def fallbacks() -> Iterator[Case]:
    error, eager = {"fallback": "error"}, {"fallback": "eager"}
    variable = {"PORTRT_FALLBACK": "error"}
    old: Case = {"engines": (OLD,)}
    code = "library_version"
    yield case("refused by the file", REFUSED, code, **old, stored=error, effective=error)
    yield case(
        "refused by the environment", REFUSED, code, **old, environment=variable, effective=error
    )
    yield case("refused by the context", REFUSED, code, **old, context=[error], effective=error)
    yield case(
        "null leaves it open",
        REFUSED,
        code,
        **old,
        stored={"fallback": None},
        environment=variable,
        effective=error,
    )
    yield case(
        "the file over the environment", EAGER, code, **old, stored=eager, environment=variable
    )
    yield case("the context over the file", EAGER, code, **old, stored=error, context=[eager])
    yield case("the inner context over the outer", EAGER, code, **old, context=[error, eager])
    yield case(
        "an inner context that leaves it open",
        REFUSED,
        code,
        **old,
        context=[error, {"check": "off"}],
        effective=error,
    )
    yield case("an engine needs no fallback", ENGINE, "ok", stored=error, effective=error)
    yield case("an empty variable is none", EAGER, code, **old, environment={"PORTRT_FALLBACK": ""})
    stripped = {"stored": error, "effective": error, "source": False}
    yield case("no source before the policy", ("error", "source_missing"), code, **old, **stripped)


def compiled_fallbacks() -> Iterator[Case]:
    stored = {"fallback": "eager", "compile_fallback": "inductor"}
    own = {"fallback": "inductor"}
    made = ("compiled", "inductor")
    code = "library_version"
    old: Case = {"engines": (OLD,), "compiler": True}
    yield case("compiled, by the file", made, code, **old, stored=stored, effective=own)
    yield case("compiled, by the context", made, code, **old, context=[own], effective=own)
    variable = {"PORTRT_FALLBACK": "inductor"}
    yield case(
        "compiled, by the environment", made, code, **old, environment=variable, effective=own
    )
    yield case("no compiler", EAGER, code, engines=(OLD,), context=[own], effective=own)
    ready: Case = {"compiler": True, "context": [own], "effective": own}
    yield case("an engine before the compiler", ENGINE, "ok", **ready)
    eager = {"fallback": "eager"}
    yield case("not compiled, by the context", EAGER, code, **old, stored=stored, context=[eager])
    error = {"fallback": "error", "compile_fallback": "inductor"}
    yield case(
        "an error is not compiled",
        REFUSED,
        code,
        **old,
        stored=error,
        effective={"fallback": "error"},
    )
    later = {"fallback": "eager", "compile_fallback": "llvm"}
    yield case("compiled by a backend of a later version", EAGER, code, **old, stored=later)
    strict = {"engines": [], "fallback": "inductor"}
    none: Case = {"compiler": True, "context": [strict], "effective": strict}
    yield case("no engine allowed, and compiled", made, "policy", **none)
    bare: Case = {**old, "source": False, "context": [own], "effective": own}
    yield case("no source to compile", ("error", "source_missing"), code, **bare)
    for value in (True, False):
        both = {"fallback": "inductor", "background": value}
        yield case(
            f"compiled, in the background {value}",
            made,
            code,
            **old,
            stored={**stored, "background": value},
            effective=both,
        )
        variable = {"PORTRT_BACKGROUND": str(int(value))}
        yield case(
            f"the background {value} by the environment",
            ENGINE,
            "ok",
            environment=variable,
            effective={"background": value},
        )
    yield case("a background of another type in the file", ENGINE, "ok", stored={"background": 1})
    rebuild = {"rebuild": "missing", "fallback": "inductor"}
    yield case(
        "built again before it is compiled",
        ("rebuild", "onnxruntime"),
        code,
        **old,
        builders=("onnxruntime",),
        context=[rebuild],
        effective=rebuild,
    )


def allowed() -> Iterator[Case]:
    none, rtx = {"engines": []}, {"engines": ["tensorrt_rtx"]}
    yield case("none allowed by the file", EAGER, "policy", stored=none, effective=none)
    yield case("another allowed by the file", EAGER, "policy", stored=rtx, effective=rtx)
    own = {"engines": ["onnxruntime"]}
    yield case("allowed by the file", ENGINE, "ok", stored=own, effective=own)
    yield case("none allowed by the context", EAGER, "policy", context=[none], effective=none)
    yield case(
        "the context over the file's list", ENGINE, "ok", stored=none, context=[own], effective=own
    )
    named = {"PORTRT_ENGINES": " tensorrt_rtx , onnxruntime,"}
    both = {"engines": ["tensorrt_rtx", "onnxruntime"]}
    yield case("the environment's list", ENGINE, "ok", environment=named, effective=both)
    empty = {"PORTRT_ENGINES": ""}
    yield case(
        "an empty list in the environment", EAGER, "policy", environment=empty, effective=none
    )
    yield case(
        "the file's list over the environment's",
        EAGER,
        "policy",
        environment=named,
        stored=rtx,
        effective=rtx,
    )
    unknown = {"engines": ["of_tomorrow"]}
    yield case("an unknown name allows nothing", EAGER, "policy", stored=unknown, effective=none)
    mixed = {"engines": ["of_tomorrow", "onnxruntime"]}
    yield case("an unknown name beside a known one", ENGINE, "ok", stored=mixed, effective=own)
    yield case("null allows all", ENGINE, "ok", stored={"engines": None})
    order = {"engines": ["onnxruntime", "tensorrt_rtx"]}
    first = {**RTX, "devices": ["cpu"]}
    yield case(
        "the list has no order",
        ("engine", "tensorrt_rtx"),
        "ok",
        "ok",
        engines=(first, ORT),
        stored=order,
        effective=order,
    )
    wrong = {**OLD, "devices": ["cuda"]}
    yield case(
        "policy before device", EAGER, "policy", engines=(wrong,), stored=none, effective=none
    )
    strict = {"engines": [], "fallback": "error"}
    yield case("nothing allowed", REFUSED, "policy", stored=strict, effective=strict)


def rebuilds() -> Iterator[Case]:
    missing = {"rebuild": "missing"}
    made = ("rebuild", "onnxruntime")
    code = "library_version"
    two = ("onnxruntime", "tensorrt")
    old: Case = {"engines": (OLD,), "builders": two}
    yield case("not asked for", EAGER, code, **old)
    yield case("asked for by the file", made, code, **old, stored=missing, effective=missing)
    yield case("asked for by the context", made, code, **old, context=[missing], effective=missing)
    variable = {"PORTRT_REBUILD": "missing"}
    yield case(
        "asked for by the environment", made, code, **old, environment=variable, effective=missing
    )
    never = {"rebuild": "never"}
    yield case("the context forbids it", EAGER, code, **old, stored=missing, context=[never])
    yield case(
        "a value of a later version",
        EAGER,
        code,
        **old,
        stored={"rebuild": "always"},
        environment=variable,
    )
    yield case(
        "not where an engine fits", ENGINE, "ok", builders=two, stored=missing, effective=missing
    )
    yield case("no builder", EAGER, code, engines=(OLD,), stored=missing, effective=missing)
    bare: Case = {"builders": two, "source": False, "stored": missing, "effective": missing}
    yield case("no source to build from", ("error", "source_missing"), code, engines=(OLD,), **bare)
    strict = {"rebuild": "missing", "fallback": "error"}
    yield case("before the refusal", made, code, **old, stored=strict, effective=strict)
    yield case(
        "no builder and no fallback", REFUSED, code, engines=(OLD,), stored=strict, effective=strict
    )
    yield case(
        "of a file without engines",
        made,
        engines=(),
        builders=two,
        stored=missing,
        effective=missing,
    )


def trusts() -> Iterator[Case]:
    gpu: Case = {"engines": (CODED,), "device": "cuda"}
    choice = ("engine", "tensorrt")
    given = {"trust": ["host-code"]}
    yield case("host code without trust", EAGER, "untrusted_code", **gpu)
    yield case(
        "host code, trusted by the context", choice, "ok", **gpu, context=[given], effective=given
    )
    variable = {"PORTRT_TRUST": "host-code"}
    yield case(
        "host code, trusted by the environment",
        choice,
        "ok",
        **gpu,
        environment=variable,
        effective=given,
    )
    yield case("host code, trusted by the file", EAGER, "untrusted_code", **gpu, stored=given)
    none: Case = {"trust": []}
    yield case(
        "the context withdraws trust",
        EAGER,
        "untrusted_code",
        **gpu,
        environment=variable,
        context=[none],
        effective=none,
    )
    empty = {"PORTRT_TRUST": ""}
    yield case("an empty trust is none", EAGER, "untrusted_code", **gpu, environment=empty)
    old = {**CODED, "machine": "wrong_gpu"}
    yield case("the machine before trust", EAGER, "wrong_gpu", engines=(old,), device="cuda")
    yield case("no host code needs no trust", choice, "ok", engines=(TRT,), device="cuda")


def others() -> Iterator[Case]:
    for number in (0, 8):
        graphs = {"cuda_graphs": number}
        yield case(f"{number} graphs by the file", ENGINE, "ok", stored=graphs, effective=graphs)
        variable = {"PORTRT_CUDA_GRAPHS": str(number)}
        yield case(
            f"{number} graphs by the environment",
            ENGINE,
            "ok",
            environment=variable,
            effective=graphs,
        )
    for value in (-1, 1.5, "8", True):
        yield case(f"{value!r} graphs by the file", ENGINE, "ok", stored={"cuda_graphs": value})
    off = {"cuda_graphs": 0}
    yield case(
        "no graphs over some", ENGINE, "ok", stored={"cuda_graphs": 8}, context=[off], effective=off
    )
    check = {"check": "first-open"}
    yield case("a check by the file", ENGINE, "ok", stored=check, effective=check)
    yield case(
        "a check by the environment",
        ENGINE,
        "ok",
        environment={"PORTRT_CHECK": "first-open"},
        effective=check,
    )
    yield case("a check of a later version", ENGINE, "ok", stored={"check": "always"})
    yield case(
        "the context forbids a check", ENGINE, "ok", stored=check, context=[{"check": "off"}]
    )
    select = {"select": "measured"}
    yield case("a selection by the file", ENGINE, "ok", stored=select, effective=select)
    yield case(
        "a selection by the environment",
        ENGINE,
        "ok",
        environment={"PORTRT_SELECT": "measured"},
        effective=select,
    )
    yield case("a selection of a later version", ENGINE, "ok", stored={"select": "cheapest"})
    yield case(
        "the context selects the first", ENGINE, "ok", stored=select, context=[{"select": "first"}]
    )
    yield case("unknown fields of the file", ENGINE, "ok", stored={"priority": 5})
    every = {
        "fallback": "error",
        "engines": ["onnxruntime"],
        "rebuild": "missing",
        "cuda_graphs": 4,
        "check": "first-open",
        "select": "measured",
    }
    yield case("every field by the file", ENGINE, "ok", stored=every, effective=every)


def bad_settings() -> Iterator[Case]:
    """What the caller or the environment gives is refused where a file's would be ignored."""
    for name, environment, context in (
        ("unknown fallback in the environment", {"PORTRT_FALLBACK": "gpu"}, []),
        ("unknown engine in the environment", {"PORTRT_ENGINES": "of_tomorrow"}, []),
        ("unknown rebuild in the environment", {"PORTRT_REBUILD": "always"}, []),
        ("unknown trust in the environment", {"PORTRT_TRUST": "everything"}, []),
        ("text for graphs in the environment", {"PORTRT_CUDA_GRAPHS": "many"}, []),
        ("negative graphs in the environment", {"PORTRT_CUDA_GRAPHS": "-1"}, []),
        ("unknown check in the environment", {"PORTRT_CHECK": "always"}, []),
        ("unknown fallback in the context", {}, [{"fallback": "gpu"}]),
        ("unknown engine in the context", {}, [{"engines": ["of_tomorrow"]}]),
        ("unknown rebuild in the context", {}, [{"rebuild": "always"}]),
        ("unknown trust in the context", {}, [{"trust": ["everything"]}]),
        ("true graphs in the context", {}, [{"cuda_graphs": True}]),
        ("text for the background in the environment", {"PORTRT_BACKGROUND": "yes"}, []),
        ("a number for the background in the context", {}, [{"background": 5}]),
        ("unknown check in the context", {}, [{"check": "always"}]),
        ("unknown selection in the environment", {"PORTRT_SELECT": "cheapest"}, []),
        ("unknown selection in the context", {}, [{"select": "cheapest"}]),
    ):
        yield {
            "name": name,
            "stored": {},
            "environment": environment,
            "context": context,
            "error": "settings",
        }


def cases() -> list[Case]:
    return [
        *engines(),
        *fallbacks(),
        *compiled_fallbacks(),
        *allowed(),
        *rebuilds(),
        *trusts(),
        *others(),
        *bad_settings(),
    ]
