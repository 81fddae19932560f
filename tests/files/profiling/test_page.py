"""The HTML page: bars of the right length, nothing that runs, nothing from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import onnx
import pytest
import torch
from tiny import shared

from portrt import files
from portrt.engines.base import LayerTime
from portrt.files.profiling.modules import module_times
from portrt.files.profiling.result import BlockProfile, FileProfile
from portrt.files.profiling.source_nodes import SourceNode, printable, source_nodes
from portrt.format.editor import ProgramEditor
from portrt.format.manifest import Blob

SCRIPT = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def profile_of(*blocks: BlockProfile, file: str = "a.pt2") -> FileProfile:
    outside = BlockProfile("outside of the blocks", "eager", None, (), {})
    inputs = ({"name": "x", "dtype": "float32", "shape": [2, 8], "random": True},)
    return FileProfile(file, "cpu", {"device": "d"}, inputs, 3, 0.5, blocks, outside)


LAYERS = (
    LayerTime("node_a", "MatMul", 0.001, ("a",)),
    LayerTime("fused", "BiasGelu", 0.004, ("b", "c"), "float 2x8"),
    LayerTime("copy", "Copy", 0.002),
)
NODES = {
    "a": SourceNode("aten.mm.default", "encoder.first", ""),
    "b": SourceNode("aten.add.Tensor", "encoder.second", "model.py:7: return x + b"),
    "c": SourceNode("aten.gelu.default", "encoder.second.act", ""),
}
BLOCK = BlockProfile("block_0", "onnxruntime", 0.006, LAYERS, NODES)


def rows(page: Tags) -> list[dict[str, str]]:
    """Variables of the rows that are layers, in the order of the page."""
    styles = [attrs.get("style") or "" for tag, attrs in page.tags if tag == "details"]
    return [
        dict(part.split(":") for part in style.split(";")) for style in styles if "--rank" in style
    ]


def test_bars_are_as_long_as_the_times() -> None:
    found = rows(Tags(profile_of(BLOCK).to_html()))
    assert [row["--place"] for row in found] == ["0", "1", "2"]
    assert [row["--rank"] for row in found] == ["2", "0", "1"]
    assert [row["--width"] for row in found] == ["25.00%", "100.00%", "50.00%"]


def test_the_text_says_what_was_measured() -> None:
    text = Tags(profile_of(BLOCK).to_html()).text
    for part in (
        "3 layers, 7.000 ms in all",
        "a plain call takes 6.000 ms",
        "71% of the layers' time is mapped",
        "4.000 ms",
        "57.1%",
        "model.py:7: return x + b",
        "not mapped to a node",
        "float 2x8",
        "500.000 ms",
    ):
        assert part in text, part


def test_modules_hold_what_is_in_them() -> None:
    root = module_times(profile_of(BLOCK).to_json()["blocks"][0])
    assert (root.path, root.seconds) == ("", pytest.approx(0.007))
    (encoder,) = root.inner
    assert (encoder.path, encoder.seconds) == ("encoder", pytest.approx(0.005))
    assert [(it.path, it.seconds) for it in encoder.inner] == [
        ("encoder.second", 0.004),
        ("encoder.first", 0.001),
    ]


def test_every_text_is_escaped() -> None:
    node = SourceNode(SCRIPT, SCRIPT, SCRIPT)
    layer = LayerTime(SCRIPT, SCRIPT, 0.001, (SCRIPT,), SCRIPT)
    block = BlockProfile(SCRIPT, SCRIPT, 0.001, (layer,), {SCRIPT: node}, SCRIPT)
    profile = replace(
        profile_of(block, file=SCRIPT),
        machine={SCRIPT: SCRIPT},
        inputs=({"name": SCRIPT, "dtype": SCRIPT, "shape": None, "random": False},),
    )
    page = profile.to_html()
    assert "<script" not in page
    assert "<img" not in page
    found = Tags(page)
    assert found.text.count(SCRIPT) >= 10
    plain = {tag for tag, _ in Tags(profile_of(BLOCK).to_html()).tags}
    assert {tag for tag, _ in found.tags} == plain
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]


def test_nothing_is_loaded_and_nothing_runs() -> None:
    page = profile_of(BLOCK).to_html()
    found = Tags(page)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
    names = {name for _, attrs in found.tags for name in attrs}
    assert not names & {"src", "href", "srcset", "action"}
    assert "url(" not in page
    assert "@import" not in page
    assert "://" not in page
    (policy,) = [a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_a_profile_without_layers() -> None:
    block = BlockProfile("block_0", "other", 0.1, (), {}, "other does not tell")
    text = Tags(profile_of(block).to_html()).text
    assert "0 layers, 0.000 ms in all" in text
    assert "other does not tell" in text


@pytest.mark.parametrize("name", [SCRIPT, 'a"b', "a\\", "a\x1b[31m", "a\nb", "x" * 5000])
def test_a_hostile_file(name: str, tmp_path: Path) -> None:
    """An engine whose nodes have such names: as ONNX Runtime's trace gives them back."""
    torch.export.save(shared("onnxruntime"), tmp_path / "a.pt2")
    files.extract(tmp_path / "a.pt2", "plan", tmp_path / "a.onnx", engine="onnxruntime")
    graph = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    for index, node in enumerate(graph.graph.node):
        node.name = f"{name}{index}"
    draft = ProgramEditor(tmp_path / "a.pt2")
    (call,) = draft.calls
    entry = {k: v for k, v in call.entry["engines"][0].items() if k != "data"}
    data = graph.SerializeToString()
    entry["data"] = Blob.of(len(call.blobs), data).to_json()
    call.add_engine(entry, [draft.add_blob(call, "engine", data)], first=True)
    draft.write(tmp_path / "b.pt2", None)
    found = files.profile(tmp_path / "b.pt2", calls=1)
    names = [layer.name for layer in found.blocks[0].layers]
    assert names
    assert all(name.isprintable() and len(name) < 2000 for name in names)
    assert not any(name.startswith("node_") for name in names)
    assert found.blocks[0].mapped == 1
    page = found.to_html()
    assert "<script" not in page
    assert "<img" not in page


def test_texts_that_cannot_be_printed() -> None:
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    assert printable("naïve 名") == "naïve 名"
    assert len(printable("x" * 10_000)) == 300


def test_lines_of_code_come_without_folders() -> None:
    graph = torch.fx.Graph()
    node = graph.call_function(torch.ops.aten.relu.default, (graph.placeholder("x"),))
    for trace, line in (
        (
            'File "/home/me/secret/model.py", line 3, in forward\n    y = f(x)',
            "model.py:3: y = f(x)",
        ),
        ('File "C:\\me\\model.py", line 3, in forward', "model.py:3"),
        (
            'File "/a/outer.py", line 1, in f\n    g()\nFile "/b/inner.py", line 2, in g\n    h()',
            "inner.py:2: h()",
        ),
        ("nothing of the kind", ""),
        (None, ""),
        (["a"], ""),
    ):
        node.meta["stack_trace"] = trace
        assert source_nodes(graph)[node.name].line == line
    node.meta["nn_module_stack"] = {"k": ("layer.0", "torch.nn.ReLU")}
    assert source_nodes(graph)[node.name].module == "layer.0"
    for odd in (None, {}, [], {"k": None}, {"k": ()}, {"k": (1, 2)}):
        node.meta["nn_module_stack"] = odd
        assert source_nodes(graph)[node.name].module == ""
    assert re.fullmatch(r"aten\.relu\.default", source_nodes(graph)[node.name].target)
