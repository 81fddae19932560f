"""What the documents say is what the code does: examples run, fields and files exist."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import options_page
import pytest
from torch.export import ExportedProgram

from portrt import cli
from portrt.compiler.options.settings import all_options
from portrt.format import manifest, size_expr
from portrt.format.archive import Archive, engine_calls
from portrt.targets.backends import BUILT_IN

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "portrt"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
DOCUMENTS = ["README.md", "CHANGELOG.md", *PAGES]

# Words that are not the field's; behind each what to write instead.
FOREIGN = (
    r"\bwhole numbers?\b",  # integer
    r"\bthe data decides?\b|\bdecided by (?:the )?data\b",  # data-dependent size
    r"\bsizes? from data\b",
    r"\b(?:smallest|least), best\b",  # min, opt, max
    r"\b(?:is|are|was|were|be) told\b|\btells?\b",  # gets, passes, shows
    r"\bsa(?:id|ys?)\b",  # shows, reports, requires, logs
    r"\bnobody\b|\bsomebody\b",
    r"\bwhoever\b",
    r"\bwill do\b",  # is within the tolerance
    r"\bvouch(?:es|ed)?\b",  # trusts
    r"\banswer(?:s|ed)?\b",  # returns, raises, works around
    r"\bask(?:s|ed)?\b",  # requested, required
    r"\bwithout a word\b|\bin (?:its|their) own words\b",  # silently
    r"\b(?:parser|builder|library)'s words\b",  # message
    r"\btak(?:e|es|en|ing) (?:it |them )?apart\b",  # decompose
    r"\bin the places? of\b",  # instead of
    r"\bother numbers than\b",  # different from
    r"\bstronger than\b|\bstronger policy\b",  # takes precedence over
    r"\bthrown? away\b",  # discarded
    r"\bturned round\b",  # inverted
    r"\bcode for the CPU\b",  # host code
    r"\badopt(?:s|ed|ing)?\b",  # prebuilt engine, from_plan
    r"\bengines? that (?:somebody|someone) else\b",
    r"\bnarrow (?:numbers|dtypes)\b",  # low precision, quantized
    r"\bprocess(?:es)? of (?:its|their) own\b",  # separate process
    r"\bmend(?:s|ed|ing)?\b",  # fix
    r"\bholds? (?:back|against)\b|\bheld (?:to|against)\b",  # compare with
    r"\blikewise\b",
    r"\brightly\b",  # correctly
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


def test_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(import torch, portrt.*?)```", _read("README.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", _read(document)):
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path.read_text(encoding="utf-8")), target


def test_readme_links_every_page() -> None:
    text = _read("README.md")
    for page in PAGES:
        assert re.search(rf"\]\({re.escape(page)}[)#]", text), page


def test_readme_has_the_figures_of_the_generated_pages() -> None:
    text = _read("README.md")
    core, inside = re.findall(
        r"of (\d+) that return tensors .*? with eager's numbers \| (\d+) \|",
        " ".join(_read("docs/operators.md").split()),
    )[0]
    assert f"{inside} of {core}" in text
    models, programs, engines = re.findall(
        r"(\d+) models, (\d+) programs: \*\*(\d+) ", _read("docs/models.md")
    )[0]
    assert f"{models} model families" in text
    assert f"{engines} of {programs} programs" in text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_language_is_that_of_the_field(document: str) -> None:
    """Code and link targets may contain any word."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", _read(document), flags=re.DOTALL)
    text = " ".join(text.split())
    found = [match.group() for word in FOREIGN for match in re.finditer(word, text, re.IGNORECASE)]
    assert not found


def test_architecture_names_files_that_exist() -> None:
    text = _read("docs/architecture.md")
    for name in re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", text):
        home = (
            ROOT if name.startswith(("tests/", "examples/", "csrc/", "conformance/")) else PACKAGE
        )
        assert (home / name).exists(), name


def test_architecture_draws_the_tree() -> None:
    """Every folder, two levels deep and where its line is; every file at the top."""
    (tree,) = re.findall(r"```\nsrc/portrt/\n(.*?)```", _read("docs/architecture.md"), re.DOTALL)
    drawn: set[Path] = set()
    parents: list[tuple[int, Path]] = [(0, PACKAGE)]
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        names = re.findall(r"\w+/(?= |$)|\w+\.py(?= |$)", line)
        if not names:
            continue
        while parents[-1][0] >= indent:
            parents.pop()
        for name in names:
            path = parents[-1][1] / name.rstrip("/")
            assert path.is_dir() if name.endswith("/") else path.is_file(), line
            drawn.add(path)
        if names[0].endswith("/"):
            parents.append((indent, parents[-1][1] / names[0].rstrip("/")))
    rooms = [path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    assert {path for path in rooms if len(path.relative_to(PACKAGE).parts) < 3} <= drawn
    assert {path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"} <= drawn


def test_fixes_names_files_that_exist() -> None:
    named = re.findall(r"`((?:src|tests|benchmarks)/[\w/.]*)`", _read("docs/fixes.md"))
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


def test_format_page_has_every_field(program_file: Path) -> None:
    text = _read("docs/format.md")
    (call,) = engine_calls(Archive(program_file))
    raw = json.loads(call.text)
    for key in {*raw, *raw["engines"][0], *raw["engines"][0]["build"], *raw["weights"]}:
        assert re.search(rf"\b{key}\b", text), key
    for name in (*size_expr.OPERATORS, *BUILT_IN):
        assert name in text
    assert f"version {manifest.FORMAT}" in text
    for version, entry in manifest.FORMAT_HISTORY.items():
        assert re.search(rf"\| {version} \| {entry[:10]} \|", text)


def test_options_page_has_the_tables_of_the_fields() -> None:
    page = _read("docs/options.md")
    assert options_page.updated(page) == page, "run: python tests/options_page.py"
    assert page.count("| `") >= len(all_options())


def test_readme_names_every_command_and_engine() -> None:
    text = _read("README.md")
    for command in cli.COMMANDS:
        assert f"portrt {command}" in text
    for backend in BUILT_IN:
        assert f"`{backend}`" in text


def _anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def program_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    import portrt

    path = tmp_path_factory.mktemp("documents") / "a.pt2"
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
    program = portrt.compile(
        model, inputs=[torch.randn(2, 4)], engines="onnxruntime", output_format="exported_program"
    )
    assert isinstance(program, ExportedProgram)
    portrt.save(program, path)
    return path
