"""Renders the JSON of a profile as one HTML page: bars, without script or external resources.

Names in it come from a file that may be hostile. Every text is escaped, and the page's content
security policy forbids scripts and external resources. The rows are reordered by CSS alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from portrt.files.profiling.modules import ModuleTime, module_times

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #76b900; --part: #3b82c4; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
p { margin: .3rem 0 } .dim { opacity: .7 }
table { border-collapse: collapse } td, th { padding: .1rem .8rem .1rem 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere }
.rows { display: flex; flex-direction: column; border-top: 1px solid var(--line) }
.rows > details { order: var(--rank); border-bottom: 1px solid var(--line) }
#execution:checked ~ main .rows > details { order: var(--place) }
summary { display: grid; grid-template-columns: 14rem 1fr 5.5rem 4rem; gap: .8rem; cursor: pointer;
  padding: .15rem .3rem }
summary:hover { background: #8882 }
.track { align-self: center; height: .8rem }
.bar { height: 100%; background: var(--bar); width: var(--width); min-width: 1px }
.modules .bar { background: var(--part) }
.name { overflow-wrap: anywhere } .number { text-align: right; font-variant-numeric: tabular-nums }
details > div { padding: .2rem .3rem .6rem 1.5rem }
code { font-family: ui-monospace, monospace; font-size: .92em }
"""


def page(profile: Mapping[str, Any]) -> str:
    """Render a profile.

    Args:
        profile: Its JSON, as docs/profiling.md describes it.

    Returns:
        A whole document in UTF-8.
    """
    outside = [profile["outside"]] if profile["outside"]["layers"] else []
    sections = "".join(_section(block) for block in (*profile["blocks"], *outside))
    file = escape(profile["file"])
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Profile of {file}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Profile of <code>{file}</code></h1>\n{_facts(profile)}"
        '<input type="radio" name="order" id="time" checked> <label for="time">slowest first'
        '</label> <input type="radio" name="order" id="execution"> <label for="execution">in the '
        f"order of execution</label>\n<main>{sections}</main>\n</body></html>\n"
    )


def _facts(profile: Mapping[str, Any]) -> str:
    shapes = [
        f"{item['name']}: {item['dtype']} {'x'.join(map(str, item['shape'] or []))}"
        + (", random" if item["random"] else "")
        for item in profile["inputs"]
    ]
    rows = [
        ("a plain call of the program", _ms(profile["call_seconds"])),
        ("inputs", "; ".join(shapes)),
        ("calls", f"every time is the median of {profile['calls']}"),
        *profile["machine"].items(),
    ]
    return (
        _table(rows) + '<p class="dim">A plain call is timed apart from the layers. Timing layers '
        "costs time itself, most of all where they are small: their sum may be more than a plain "
        "call. Where it is less, the rest is spent between them.</p>\n"
    )


def _table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<tr>{titles}</tr>' if head else ''}{body}</table>\n"


def _section(block: Mapping[str, Any]) -> str:
    layers = block["layers"]
    facts = [f"{len(layers)} layers, {_ms(block['layers_seconds'])} in all"]
    if block["call_seconds"] is not None:
        facts.append(f"a plain call takes {_ms(block['call_seconds'])}")
    if layers and block["nodes"]:
        facts.append(f"{block['mapped']:.0%} of the layers' time is mapped to nodes of the source")
    if block["reason"]:
        facts.append(block["reason"])
    order = sorted(range(len(layers)), key=lambda i: -layers[i]["seconds"])
    rank = {place: number for number, place in enumerate(order)}
    longest = max((layer["seconds"] for layer in layers), default=0.0) or 1.0
    rows = "".join(
        _row(block, layer, place, rank[place], longest) for place, layer in enumerate(layers)
    )
    return (
        f"<section><h2>{escape(block['name'])} <span class=dim>runs as {escape(block['backend'])}"
        f'</span></h2>\n<p>{escape("; ".join(facts))}.</p>\n<div class="rows">{rows}</div>\n'
        f"{_modules(block)}</section>\n"
    )


def _row(
    block: Mapping[str, Any], layer: Mapping[str, Any], place: int, rank: int, longest: float
) -> str:
    share = layer["seconds"] / (block["layers_seconds"] or 1.0)
    module = layer["module"]
    facts = [("layer", layer["name"]), ("returns", layer["detail"]), ("module", module)]
    known = [(name, block["nodes"][name]) for name in layer["nodes"] if name in block["nodes"]]
    nodes = [(name, node["target"], node["module"], node["line"]) for name, node in known]
    inside = _table(fact for fact in facts if fact[1])
    inside += (
        _table(nodes, ("node", "operator", "module", "line"))
        if nodes
        else '<p class="dim">not mapped to a node of the source</p>'
    )
    style = f"--place:{place};--rank:{rank};--width:{layer['seconds'] / longest:.2%}"
    return (
        f'<details style="{style}" title="{escape(", ".join(layer["nodes"]))}"><summary>'
        f'<span class="name">{escape(layer["kind"])} <span class="dim">{escape(module)}</span>'
        f'</span>{_bar()}<span class="number">{_ms(layer["seconds"])}</span>'
        f'<span class="number">{share:.1%}</span></summary><div>{inside}</div></details>\n'
    )


def _bar() -> str:
    return '<span class="track"><div class="bar"></div></span>'


def _modules(block: Mapping[str, Any]) -> str:
    """Render the same time by module of the model, each with the modules in it."""
    times = module_times(block)
    if not times.inner:
        return ""
    return f'<h3>By module</h3><div class="modules">{_module(times, times.seconds or 1.0)}</div>\n'


def _module(times: ModuleTime, total: float) -> str:
    inner = "".join(_module(item, total) for item in times.inner)
    inside = f"<div>{inner}</div>" if inner else ""
    opened = " open" if not times.path else ""
    name = times.path or "the model"
    return (
        f'<details{opened} style="--width:{times.seconds / total:.2%}"><summary><span class="name">'
        f'{escape(name)}</span>{_bar()}<span class="number">{_ms(times.seconds)}</span>'
        f'<span class="number">{times.seconds / total:.1%}</span></summary>{inside}</details>\n'
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"
