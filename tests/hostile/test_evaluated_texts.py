"""Programs whose texts make torch run code while it reads them: refused before torch sees them."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_mutations import Program, Zip
from tiny import model, shared

import portrt
from portrt import files
from portrt.errors import EngineError, InputError, LoadError, PackageError
from portrt.format.archive import CONSTANTS_CONFIG, MODEL, SAMPLE_INPUTS

X = torch.linspace(-1, 1, 24).view(3, 8)


def edited(data: bytes, edit: Callable[[dict[str, Any]], Any], record: str = MODEL) -> bytes:
    file = Zip.of(data)
    tree = file.json(record)
    edit(tree)
    file.store(record, tree)
    return file.data()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("texts") / "model.pt2"
    portrt.save(shared("onnxruntime"), path)
    return path.read_bytes()


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Attacks write this file; none may."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


def _code(marker: Path) -> str:
    return f"__import__('pathlib').Path('{marker}').touch()"


def _graph(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["graph_module"]["graph"]


def _sizes(tree: dict[str, Any]) -> list[dict[str, Any]]:
    metas = _graph(tree)["tensor_values"].values()
    return [size["as_expr"] for meta in metas for size in meta["sizes"] if "as_expr" in size]


def _renamed(tree: dict[str, Any], name: str) -> None:
    """Rename the program's input, which is a parameter of the function that torch generates."""
    text = json.dumps(tree)
    tree.update(json.loads(text.replace('"name": "x"', json.dumps({"name": name})[1:-1])))
    values = _graph(tree)["tensor_values"]
    values[name] = values.pop("x")


def _targets(tree: dict[str, Any], target: str, code: str) -> None:
    node = _graph(tree)["nodes"][0]
    node["target"] = target
    node["inputs"] = [{"name": "", "arg": {"as_string": code}, "kind": 1}]


def _call_signature(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["graph_module"]["module_call_graph"][0]["signature"]


def _text_input(tree: dict[str, Any], value: str) -> None:
    module = tree["graph_module"]
    module["graph"]["inputs"].append({"as_string": value})
    module["signature"]["input_specs"].append({"user_input": {"arg": {"as_string": value}}})


Edit = Callable[[dict[str, Any], str], Any]
ATTACKS: dict[str, Edit] = {
    "a size": lambda t, c: [size.update(expr_str=c) for size in _sizes(t)],
    "a hint": lambda t, c: [size.update(hint=c) for size in _sizes(t)],
    "a size that sympy computes": lambda t, _: [s.update(expr_str="9**9**9") for s in _sizes(t)],
    "a guard": lambda t, c: t.update(guards_code=[f"{c} or True"]),
    "a quote in a guard": lambda t, c: t.update(guards_code=[f"L['x\")+{c}#'] == 1"]),
    "a range": lambda t, c: t["range_constraints"].update({c: {"min_val": 1, "max_val": 2}}),
    "a range without end": lambda t, _: t["range_constraints"].update(
        {"u99999999999999": {"min_val": 1, "max_val": 2}}
    ),
    "an operator": lambda t, c: _targets(t, "torch.os.system", c),
    "a builtin": lambda t, c: _targets(t, "torch.sys.modules", c),
    "a file operator": lambda t, c: _targets(t, "torch.ops.aten.from_file.default", c),
    "an operator as argument": lambda t, c: _graph(t)["nodes"][0]["inputs"].append(
        {"name": "f", "arg": {"as_operator": "torch.os.system"}, "kind": 1}
    ),
    "an unregistered operator": lambda t, c: _targets(t, "torch.ops.nowhere.op.default", c),
    "a parameter": lambda t, c: _renamed(t, f"x=({c})"),
    "a name of a node": lambda t, c: _graph(t)["nodes"][0].update(name=f"x; {c}; y"),
    "a keyword of a node": lambda t, c: _graph(t)["nodes"][0]["inputs"][0].update(name=f"x=({c})"),
    "an argument's name": lambda t, c: _call_signature(t).update(forward_arg_names=[f"x=({c})"]),
    "a keyword": lambda t, c: _call_signature(t).update(
        in_spec=_call_signature(t)["in_spec"].replace('"[]"', json.dumps(json.dumps([f"y=({c})"])))
    ),
    "an enum in a structure": lambda t, c: _call_signature(t).update(
        out_spec='[1,{"type":"builtins.dict","context":"[{\\"__enum__\\":true,\\"fqn\\":\\"evil:'
        'x\\",\\"name\\":\\"y\\"}]","children_spec":[{"type":null,"context":null,'
        '"children_spec":[]}]}]'
    ),
    "a text as input": lambda t, c: _text_input(t, f"' or {c} or '"),
    "a number that is a text": lambda t, c: (
        _graph(t)["inputs"].append({"as_int": f"' or {c} or '"}),
        t["graph_module"]["signature"]["input_specs"].append(
            {"user_input": {"arg": {"as_int": 1}}}
        ),
    ),
    "a field of a later torch": lambda t, c: t.update(new_code=[{"text": c}]),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_program_that_runs_code_is_refused(
    whole: bytes, tmp_path: Path, marker: Path, name: str
) -> None:
    path = tmp_path / "evil.pt2"
    path.write_bytes(edited(whole, lambda tree: ATTACKS[name](tree, _code(marker))))
    assert path.read_bytes() != whole
    for output_format in ("exported_program", "module"):
        with pytest.raises(LoadError) as caught:
            portrt.load(path, output_format=output_format)
        assert str(path) in caught.value.happened


@pytest.mark.parametrize("name", ['a")+{}+("', "__class__.__base__.forward", "a\\", "a\nb"])
def test_a_name_of_a_constant_is_pasted_into_no_code(
    whole: bytes, tmp_path: Path, marker: Path, name: str
) -> None:
    """Names become attributes: of classes, too, which all programs share."""
    path, name = tmp_path / "evil.pt2", name.format(_code(marker))

    def in_program(tree: dict[str, Any]) -> None:
        specs = tree["graph_module"]["signature"]["input_specs"]
        next(s for s in specs if "tensor_constant" in s)["tensor_constant"].update(
            tensor_constant_name=name
        )

    def in_list(tree: dict[str, Any]) -> None:
        config = tree["config"]
        config[name] = config.pop(_first_constant(whole))

    path.write_bytes(edited(edited(whole, in_program), in_list, CONSTANTS_CONFIG))
    with pytest.raises(LoadError, match="is not a name of a weight"):
        portrt.load(path)


def _first_constant(whole: bytes) -> str:
    specs = Zip.of(whole).json(MODEL)["graph_module"]["signature"]["input_specs"]
    found = next(spec["tensor_constant"] for spec in specs if "tensor_constant" in spec)
    return str(found["tensor_constant_name"])


@pytest.mark.parametrize("name", ["a size", "a guard", "an operator", "a parameter"])
def test_a_source_that_runs_code_is_refused(
    whole: bytes, tmp_path: Path, marker: Path, name: str
) -> None:
    """By everything that reads sources."""
    path = tmp_path / "evil.pt2"
    path.write_bytes(_with_source(whole, lambda tree: ATTACKS[name](tree, _code(marker))))
    refusals = [
        lambda: portrt.load(path, engines=(), output_format="module")(X),
        lambda: files.verify(path),
        lambda: files.add_engine(path, "onnxruntime", output=tmp_path / "out.pt2"),
        lambda: files.profile(path),
    ]
    for refusal in refusals:
        with pytest.raises(PackageError, match="the source of block_0 cannot be read"):
            refusal()


def _with_source(whole: bytes, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    """Edit the program in the source, with size and digest made to fit."""
    program = Program(whole)
    (call,) = program.calls
    program.change_blob(call, program.manifest(call)["source"], lambda data: edited(data, edit))
    return program.data()


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def test_pickled_example_inputs_are_not_read(whole: bytes, tmp_path: Path, marker: Path) -> None:
    """The program keeps its guards: torch finds the names of inputs in stand-ins."""
    path, content = tmp_path / "evil.pt2", io.BytesIO()
    torch.save((((Evil(marker),)), {}), content)
    file = Zip.of(whole)
    file.records[file.name(SAMPLE_INPUTS)] = content.getvalue()
    path.write_bytes(file.data())
    program = portrt.load(path)
    torch.testing.assert_close(program.module()(X), model()(X))
    with pytest.raises(InputError):
        portrt.load(path, output_format="module")(torch.ones(3, 9))


def _with_record(data: bytes, name: str, content: io.BytesIO) -> bytes:
    file = Zip.of(data)
    root = next(iter(file.records)).partition("/")[0]
    file.records[f"{root}/{name}"] = content.getvalue()
    return file.data()


@pytest.mark.parametrize("prefix", ["tensor_9", "custom_obj_0", "opaque_obj_0"])
def test_pickled_constants_are_refused_without_trust(
    whole: bytes, tmp_path: Path, marker: Path, prefix: str
) -> None:
    path, content = tmp_path / "evil.pt2", io.BytesIO()
    torch.save(Evil(marker), content)
    if prefix.startswith("opaque"):
        content = io.BytesIO(pickle.dumps(Evil(marker)))

    def add(config: dict[str, Any]) -> None:
        payload = {"path_name": prefix, "is_param": False, "use_pickle": True, "tensor_meta": None}
        config["config"]["extra"] = payload

    path.write_bytes(
        _with_record(edited(whole, add, CONSTANTS_CONFIG), f"data/constants/{prefix}", content)
    )
    with pytest.raises(LoadError, match="has pickled data") as caught:
        portrt.load(path)
    assert "trust='pickle'" in caught.value.remedy


@pytest.mark.parametrize("record", ["data/weights/model.pt", "data/constants/model.pt"])
def test_pickled_records_of_older_releases_are_refused(
    whole: bytes, tmp_path: Path, marker: Path, record: str
) -> None:
    path, content = tmp_path / "evil.pt2", io.BytesIO()
    torch.save({"a": Evil(marker)}, content)
    path.write_bytes(_with_record(whole, record, content))
    with pytest.raises(LoadError, match="has pickled data"):
        portrt.load(path)


def test_a_field_of_a_later_torch_may_hold_numbers_and_names(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "later.pt2"
    new = {"kind": "some_name", "numbers": [1, 2.5, None, True], "empty": {}}
    path.write_bytes(edited(whole, lambda tree: tree.update(new_in_a_later_torch=new)))
    torch.testing.assert_close(portrt.load(path).module()(X), model()(X))


def _inputs_of(spec: Any, count: int) -> None:
    positional = spec["children_spec"][0]
    positional["children_spec"] = positional["children_spec"] * count


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: _inputs_of(spec, 0),
        lambda spec: _inputs_of(spec, 2),
        lambda spec: spec.update(children_spec=[]),
        lambda spec: spec.update(children_spec=spec["children_spec"][:1]),
    ],
    ids=["no input", "two inputs", "nothing", "no keywords"],
)
def test_a_structure_of_other_inputs_is_an_error_of_portrt(
    change: Callable[[dict[str, Any]], None], whole: bytes, tmp_path: Path
) -> None:
    def edit(tree: dict[str, Any]) -> None:
        signature = _call_signature(tree)
        spec = json.loads(signature["in_spec"])
        change(spec[1])
        signature["in_spec"] = json.dumps(spec)

    path = tmp_path / "a.pt2"
    path.write_bytes(edited(whole, edit))
    with pytest.raises(PackageError, match="do not fit its input structure"):
        files.profile(path, calls=1)


@pytest.mark.parametrize("argument", [{"as_int": 5}, {"as_none": True}], ids=str)
def test_an_input_that_the_graph_lacks_is_an_error_of_portrt(
    argument: dict[str, Any], whole: bytes, tmp_path: Path
) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["graph_module"]["signature"]["input_specs"][-1]["user_input"]["arg"] = argument

    path = tmp_path / "a.pt2"
    path.write_bytes(edited(whole, edit))
    for use in (
        lambda: files.profile(path, calls=1),
        lambda: portrt.load(path, output_format="module"),
    ):
        with pytest.raises(PackageError, match="inputs that its graph lacks"):
            use()


@pytest.mark.parametrize("count", [0, 2], ids=["no output", "two outputs"])
def test_a_structure_of_other_outputs_is_an_error_of_portrt(
    count: int, whole: bytes, tmp_path: Path
) -> None:
    leaf = {"type": None, "context": None, "children_spec": []}

    def edit(tree: dict[str, Any]) -> None:
        signature = _call_signature(tree)
        version, _ = json.loads(signature["out_spec"])
        several = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf] * count}
        signature["out_spec"] = json.dumps([version, several])

    path = tmp_path / "a.pt2"
    path.write_bytes(edited(whole, edit))
    with pytest.raises(PackageError, match="1 outputs do not fit its output structure"):
        files.profile(path, calls=1)


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A program of two inputs with one dynamic size."""

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x + y) * 2

    batch = torch.export.Dim("batch", min=2, max=8)
    program = portrt.compile(
        Sum(),
        inputs=[torch.ones(3, 8)] * 2,
        dynamic_shapes=({0: batch}, {0: batch}),
        min_block_size=1,
        output_format="exported_program",
    )
    path = tmp_path_factory.mktemp("two") / "a.pt2"
    portrt.save(program, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "names", [["x", "x"], ["self", "y"], ["1x", "y"], ["class", "y"], ["x"], [], ["x", "y", "z"]]
)
def test_names_that_are_no_arguments_are_an_error_of_portrt(
    names: list[str], two_inputs: bytes, tmp_path: Path
) -> None:
    def edit(tree: dict[str, Any]) -> None:
        _call_signature(tree)["forward_arg_names"] = names

    path = tmp_path / "a.pt2"
    path.write_bytes(edited(two_inputs, edit))
    with pytest.raises((PackageError, LoadError)):
        files.profile(path, calls=1)


def test_guards_that_do_not_fit_the_arguments_are_an_error_of_portrt(
    two_inputs: bytes, tmp_path: Path
) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["guards_code"] = ["L['z'].size()[0] <= 8"]

    path = tmp_path / "a.pt2"
    path.write_bytes(edited(two_inputs, edit))
    with pytest.raises((PackageError, LoadError)):
        files.profile(path, calls=1)


def test_an_operator_that_fails_is_an_error_of_portrt(tmp_path: Path) -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: torch.bernoulli(x * 0), lambda x: x * 2, (x,))

    program = portrt.compile(
        Branches(), inputs=[X], min_block_size=1, output_format="exported_program"
    )
    path = tmp_path / "a.pt2"
    portrt.save(program, path)

    def edit(tree: dict[str, Any]) -> None:
        nodes = tree["graph_module"]["graph"]["nodes"]
        (cond,) = [node for node in nodes if node["target"].endswith("cond")]
        cond["inputs"][3] = cond["inputs"][2]  # a graph for the operands

    path.write_bytes(edited(path.read_bytes(), edit))
    with pytest.raises((EngineError, PackageError, LoadError)):
        files.profile(path, calls=1)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_engine_call_without_a_manifest_is_an_error_of_portrt(
    count: int, whole: bytes, tmp_path: Path
) -> None:
    def edit(tree: dict[str, Any]) -> None:
        nodes = tree["graph_module"]["graph"]["nodes"]
        (call,) = [node for node in nodes if node["target"].endswith("execute_engine.default")]
        call["inputs"] = call["inputs"][:count]

    path = tmp_path / "a.pt2"
    path.write_bytes(edited(whole, edit))
    with pytest.raises((PackageError, LoadError)):
        files.profile(path, calls=1)
