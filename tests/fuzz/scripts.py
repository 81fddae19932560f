"""A find as a script of its own: exit status 1 while the mismatch is there."""

from __future__ import annotations

import torch

from fuzz.check import Find
from fuzz.graph import LOCALS

_HEAD = '''"""{what}"""

import sys

import torch
import torch.nn.functional as F

import portrt

inf, nan = float("inf"), float("nan")
'''

_TAIL = """

model = Graph().eval()
{weights}dynamic_shapes = {shapes}
program = portrt.compile(
    model,
    inputs=list(CALLS[0]),
    dynamic_shapes=dynamic_shapes,
    engines="onnxruntime",
    min_block_size=1,
    check="off",
    output_format="exported_program",
)
wrong = 0
for call in CALLS:
    with torch.no_grad():
        pairs = zip(program.module()(*call), model(*call), strict=True)
    for got, want in pairs:
        same = got.dtype == want.dtype and torch.allclose(
            got.double(), want.double(), rtol={rtol}, atol=0, equal_nan=True
        )
        if not same:
            print("want", want, "got", got, sep="\\n")
        wrong += not same
sys.exit(bool(wrong))
"""


def script(find: Find) -> str:
    """The script; tensors are written out."""
    graph = find.graph
    source = "".join(f"    {line}\n" for line in graph.source().splitlines())
    for name in LOCALS:
        if f"special.{name}(" in source:
            source = source.replace(f"special.{name}(", f"{name}(")
    dims = "".join(
        f'{name} = torch.export.Dim("{name}", min={low}, max={high})\n'
        for name, (low, high) in graph.ranges.items()
    )
    shapes = "None"
    if graph.dynamic_shapes() is not None:
        rows = [
            "{" + ", ".join(f"{i}: {s}" for i, s in enumerate(sizes) if isinstance(s, str)) + "}"
            for sizes in graph.inputs
        ]
        shapes = f"({', '.join(rows)},)"
    calls = ",\n".join(f"    ({', '.join(map(_literal, call))},)" for call in _ordered(find))
    weights = "".join(
        f"model.w{index} = torch.nn.Buffer({_literal(weight)})\n"
        for index, weight in enumerate(graph.weights)
    )
    dtypes = {call.dtype for calls_of in graph.calls for call in calls_of}
    half = dtypes & {torch.float16, torch.bfloat16}
    return (
        _HEAD.format(what=find.what.replace("\\", " ").replace('"""', "'''"))
        + _helpers(source)
        + f"{dims}CALLS = [\n{calls},\n]\n\n\nclass Graph(torch.nn.Module):\n{source}"
        + _TAIL.format(weights=weights, shapes=shapes, rtol="1e-2" if half else "1e-5")
    )


def _ordered(find: Find) -> list[tuple[torch.Tensor, ...]]:
    """The call to capture with, and the one that differs."""
    calls = find.graph.calls
    return [calls[0]] if find.call == 0 else [calls[0], calls[find.call]]


_HELPERS = {
    "radd": "def radd(x, y):\n    return y + x\n",
    "rsub": "def rsub(x, y):\n    return y - x\n",
    "rtruediv": "def rtruediv(x, y):\n    return y / x\n",
    "rfloordiv": "def rfloordiv(x, y):\n    return y // x\n",
    "rmod": "def rmod(x, y):\n    return y % x\n",
    "rpow": "def rpow(x, y):\n    return y**x\n",
    "floordiv": "def floordiv(x, y):\n    return x // y\n",
    "getitem": (
        "def getitem(x, *index):\n"
        "    return x[tuple(slice(*i) if isinstance(i, tuple) else i for i in index)]\n"
    ),
}


def _helpers(source: str) -> str:
    return "".join(f"\n\n{text}\n\n" for name, text in _HELPERS.items() if f" {name}(" in source)


def _literal(tensor: torch.Tensor) -> str:
    values = tensor.flatten().tolist()
    text = f"torch.tensor({values}, dtype={tensor.dtype})"
    return text if tensor.dim() == 1 else f"{text}.reshape({list(tensor.shape)})"
