"""Texts that torch evaluates: those that it writes are accepted, and no others."""

from __future__ import annotations

import pytest

from portrt.format.operators import operator_fault
from portrt.format.symbolic_text import expression_fault, guard_fault
from portrt.format.treespec import treespec_fault

S, T = "Symbol('s77', positive=True, integer=True)", "Symbol('u0', integer=True)"

# As torch 2.13 writes them (code of sympy), and as plain text, which its reader takes as well.
WRITTEN = [
    *("s77", "2*s44", "s17 + 1", "s77**2", "Max(1, ((s16 - 1)//2) + 1)", "u0 >= 0", "-u0 + s3"),
    *("Eq(s0, 2) & (s1 > 3)", "Piecewise((1, s0 > 2), (0, True))", "Mod(s0 + 1, 8)", "int_oo"),
    *(S, T, f"Mul(Integer(2), {S})", f"Pow({S}, Integer(2))", f"Add({S}, Integer(-1))"),
    f"LessThan({T}, Integer(64))",
    f"Add(FloorDiv(Add({S}, Integer(-1)), Integer(2)), Integer(1))",
    f"Max(Integer(1), FloorDiv({S}, Integer(2)))",
    f"Mul(Float('0.5', precision=53), ToFloat({S}))",
    f"Pow({S}, Rational(1, 2))",
    "Add(" + ", ".join([f"Mul({S}, Integer({n}))" for n in range(150)]) + ")",
]

ATTACKS = [
    *("__import__('os').system('x')", "().__class__", "s0.__class__", "os", "E", "s0[0]", "[s0]"),
    *("lambda: 1", "(s0 := 1)", "exec('1')", "open('x')", "Symbol('os')", "Symbol('s0 + 1')"),
    *(
        "Symbol('s0', cls=1)",
        "Integer(open)",
        "Integer('1')",
        "Float('x')",
        "f's0'",
        "'s0'",
        "b's'",
    ),
    *("s0 # comment", "s0\n", "s0;s1", "s0!", "s\uff10", "{s0}", "s0 if s1 else s2", "sqrt(*s0)"),
    *("Max(s0, key=s1)", "s0 in s1", "s0 @ s1", "s0 << 9", "", " ", "(", "s9999999", "u9999999999"),
    # Numbers that sympy would compute while it reads them.
    *("9**9**9", "Pow(9, 387420489)", "Pow(Integer(9), Integer(387420489))", "9**(s0 + 10**9)"),
    *("LShift(1, 10**9)", "PowByNatural(2, 10**9)", "((2**64)**64)**64", "(s0 + s1)**1000"),
    *("((s0 + s1)**16)**16", f"Pow({S}, Integer(1000))", "Float('1', precision=10000000)"),
    *("Float('1e99999999')", f"Pow(Integer(9), Add({S}, Integer(1000000000)))", "1" * 30_000),
    "(" * 150 + "s0" + ")" * 150 + "+ s0" * 150,
    "-" * 500 + "s0",
]


@pytest.mark.parametrize("text", WRITTEN, ids=range(len(WRITTEN)))
def test_sizes_that_torch_writes(text: str) -> None:
    assert expression_fault(text) == ""
    assert guard_fault(text) == ""


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_sizes_that_torch_does_not_write(text: str) -> None:
    assert expression_fault(text) != ""


GUARDS = [
    *("(L['x'].size()[0] // 2) != 1", "L['x'].size()[0] == L['y'].size()[0]"),
    *("((-1) + L['x'].size()[0]) == L['y'].size()[0]", "2 <= L['x'].size()[1] <= 64"),
    *("(4*L['x'].size()[0]) == (8*(L['x'].size()[0] // 2))", "L['k']['a'][0].stride()[-1] == 1"),
    *("L['cache'].key_cache[0].size()[2] % 8 == 0", "math.ceil(L['x'].size()[0] / 2) > 1"),
    *("L['n'] == 3", "L['mode'] == 'sum'", "L['y'] is None", "isinstance(L['n'], int)"),
    *("not L['flag']", "max(1, L['x'].size()[0]) <= 5", "torch.sym_max(L['n'], 2) == 2"),
    "FloorDiv(L['x'].size()[0], 2) != 1 and L['x'].storage_offset() == 0",
]
GUARD_ATTACKS = [
    *("__import__('os').system('x') or True", "L['x'].__class__", "L.__class__", "L['x'].cpu()"),
    *("L['x'].size().__class__", "print(L['x'])", "open('x')", "torch.load('x')", "math.os", "x"),
    *("torch.sym_max.__globals__", "L[L['x']]", "L['x'].size()[open('x')]", "L['x'].save('x')"),
    *("L['x'].size()[0]**L['y'].size()[0] > 1", "9**9**9 > 1", "[1 for x in L['x']]", "L['\"']"),
    *("L['x'].size()[0] == 1) or open('x'", "L['a\\'b'] == 1", "L['x']\n == 1", "eval('1')"),
    *("getattr(L['x'], 'y')", "isinstance(L['n'], object)", "(yield)", "f'{L}'", "L[0:1] == 1"),
]


@pytest.mark.parametrize("text", GUARDS)
def test_guards_that_torch_writes(text: str) -> None:
    assert guard_fault(text) == ""


@pytest.mark.parametrize("text", GUARD_ATTACKS)
def test_guards_that_torch_does_not_write(text: str) -> None:
    assert guard_fault(text) != ""


@pytest.mark.parametrize(
    "target",
    [
        *("torch.ops.aten.add.Tensor", "torch.ops.aten.__rshift__.Scalar", "_operator.floordiv"),
        *("torch.ops.aten._assert_scalar.default", "torch.ops.higher_order.cond", "math.trunc"),
        *("torch.ops.portrt.execute_engine.default", "torch.sym_max", "torch._sym_sqrt"),
        *("torch.ops.aten.index_copy_.default", "torch.ops.torchvision.nms.default"),
        *("torch.ops.my_lib.my_op.default", "torch.ops.prims.convert_element_type.default"),
    ],
)
def test_operators(target: str) -> None:
    assert operator_fault(target) == ""


@pytest.mark.parametrize(
    "target",
    [
        *("torch.os.system", "torch.load", "torch.hub.load", "torch.ops.load_library", "os.system"),
        *("math.__loader__", "_operator.attrgetter", "_operator.methodcaller", "_operator.call"),
        *("torch.ops.aten.from_file.default", "torch.ops.aten.save.default", "torch.sys.exit", ""),
        *("torch.ops.debugprims.load_tensor.default", "torch.ops.higher_order.call_torchbind"),
        *("torch.ops.aten.add.__class__", "torch.ops.aten.__class__.x", "torch.ops.aten.add"),
        *("torch.ops.__class__.mro.default", "torch.ops.aten.add.Tensor.__call__", "#ns:op", "x"),
        *("torch.ops.aten.add.Tensor\n", "torch.ops.aten.add.Tensor;x", "torch.sym_max.__call__"),
        *("torch.ops.higher_order.triton_kernel_wrapper_mutation", "torch.ops.c10d.send.default"),
    ],
)
def test_what_is_no_operator(target: str) -> None:
    assert operator_fault(target) != ""


LEAF = '{"type":null,"context":null,"children_spec":[]}'


def _spec(kind: str, context: str, *children: str) -> str:
    inner = ",".join(children)
    return f'{{"type":"{kind}","context":{context},"children_spec":[{inner}]}}'


def _call(keywords: str) -> str:
    arguments = _spec("builtins.tuple", '"null"', LEAF)
    return f"[1,{_spec('builtins.tuple', chr(34) + 'null' + chr(34), arguments, keywords)}]"


FACTORY = '{{"default_factory_module":"{}","default_factory_name":"{}","dict_context":["a"]}}'


@pytest.mark.parametrize(
    "keywords",
    [
        _spec("builtins.dict", '"[\\"y\\"]"', LEAF),
        _spec("builtins.dict", '"[]"'),
        _spec(
            "builtins.dict",
            '"[\\"y\\"]"',
            _spec("collections.defaultdict", FACTORY.format("builtins", "list"), LEAF),
        ),
    ],
)
def test_structures_that_torch_writes(keywords: str) -> None:
    assert treespec_fault(_call(keywords), keywords=True) == ""


@pytest.mark.parametrize(
    "keywords",
    [
        _spec("builtins.dict", '"[\\"y=open(0)\\"]"', LEAF),
        _spec("builtins.dict", '"[\\"y\'\\"]"', LEAF),
        _spec(
            "builtins.dict", '"[{\\"__enum__\\":true,\\"fqn\\":\\"evil:x\\",\\"name\\":1}]"', LEAF
        ),
        _spec("my.Type", '{"a":{"__enum__":true,"fqn":"evil:x","name":"1"}}', LEAF),
        _spec("collections.defaultdict", FACTORY.format("evil", "list"), LEAF),
        _spec("collections.defaultdict", FACTORY.format("builtins", "exec"), LEAF),
        _spec("collections.defaultdict", '"{}"', LEAF),
        "3",
        '{"type":"builtins.dict"}',
        '{"type":"builtins.tuple","context":null,"children_spec":' * 100 + "[]" + "}" * 100,
    ],
    ids=range(10),
)
def test_structures_that_torch_does_not_write(keywords: str) -> None:
    assert treespec_fault(_call(keywords), keywords=True) != ""


@pytest.mark.parametrize("text", ["", "[]", "[1]", "null", "[1, 2]", '["1", {}]', "[" * 100_000])
def test_no_structure(text: str) -> None:
    assert treespec_fault(text, keywords=False) != ""
