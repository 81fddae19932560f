"""The form of a program in a file: torch's JSON, field by field, and what each text may be.

After torch/_export/serde/schema.py. torch checks no types, and evaluates texts: sizes and guards
are Python expressions, operators are looked up by attributes, and the names of values become names
in Python code that it generates. A field that is not listed is new in a later torch: it may hold
numbers and plain names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from portrt.format.operators import operator_fault
from portrt.format.symbolic_text import expression_fault, guard_fault
from portrt.format.treespec import is_quotable, treespec_fault

# A check of one value; the path is a chain of (outer path, key).
Path = tuple[Any, Any] | None
Check = Callable[[Any, Path], None]

# Levels of JSON, of which a graph in a graph takes seven.
MAX_DEPTH = 200

_PLAIN = re.compile(r"[\w.:/ -]*", re.ASCII)
_NUMBERS = ("Infinity", "-Infinity", "NaN")


class MalformedError(Exception):
    """A field is not as it must be.

    Attributes:
        path: Where, as a chain of (outer path, key).
        fault: What is wrong, as the end of a sentence that begins with the field.
    """

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(path, fault)
        self.path = path
        self.fault = fault

    @property
    def pointer(self) -> str:
        """Return where, as a JSON pointer."""
        keys, path = [], self.path
        while path is not None:
            path, key = path
            keys.append(str(key)[:80].replace("~", "~0").replace("/", "~1"))
        return "".join(f"/{key}" for key in reversed(keys))


def _of(kind: type, name: str) -> Check:
    def check(value: Any, path: Path) -> None:
        if type(value) is not kind:
            raise MalformedError(path, f"is not {name}")

    return check


def _text(fault_of: Callable[[str], str]) -> Check:
    """Check a text by a function that returns what is wrong with it."""

    def check(value: Any, path: Path) -> None:
        if type(value) is not str:
            raise MalformedError(path, "is not a text")
        if fault := fault_of(value):
            raise MalformedError(path, f"{fault}: {value!r:.120}")

    return check


def _optional(inner: Check) -> Check:
    def check(value: Any, path: Path) -> None:
        if value is not None:
            inner(value, path)

    return check


def _list(inner: Check) -> Check:
    def check(value: Any, path: Path) -> None:
        if type(value) is not list:
            raise MalformedError(path, "is not a list")
        for index, item in enumerate(value):
            inner(item, (path, index))

    return check


def _table(key: Check, inner: Check) -> Check:
    def check(value: Any, path: Path) -> None:
        if type(value) is not dict:
            raise MalformedError(path, "is not an object")
        for name, item in value.items():
            key(name, path)
            inner(item, (path, name))

    return check


def _record(*, lacks: str = "", **fields: Check) -> Check:
    """Check an object with these fields; it may lack those that are named in `lacks`."""
    needed = fields.keys() - set(lacks.split())

    def check(value: Any, path: Path) -> None:
        if type(value) is not dict:
            raise MalformedError(path, "is not an object")
        for name, item in value.items():
            fields.get(name, _unknown)(item, (path, name))
        for name in needed:
            if name not in value:
                raise MalformedError((path, name), "is missing")

    return check


def _union(**fields: Check) -> Check:
    """Check an object with exactly one of these fields."""

    def check(value: Any, path: Path) -> None:
        if type(value) is not dict or len(value) != 1:
            raise MalformedError(path, "is not an object of one field")
        ((name, item),) = value.items()
        inner = fields.get(name)
        if inner is None:
            raise MalformedError((path, name), "is of an unknown kind")
        inner(item, (path, name))

    return check


def _unknown(value: Any, path: Path) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _unknown(name, path)
            _unknown(item, (path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _unknown(item, (path, index))
    elif isinstance(value, str) and not (len(value) <= 1024 and _PLAIN.fullmatch(value)):
        raise MalformedError(path, f"is a text in a field that is not known here: {value!r:.120}")


def _number(value: Any, path: Path) -> None:
    if type(value) not in (int, float) and value not in _NUMBERS:
        raise MalformedError(path, "is not a number")


def _name_fault(text: str) -> str:
    """Judge a name of a value, which becomes a name in Python code."""
    return "" if not text or text.isidentifier() else "is not a name"


def _tensor_name_fault(text: str) -> str:
    """Judge a dotted name of a weight, which becomes a chain of attributes in Python code."""
    if text and not is_quotable(text):
        return "is not a name of a weight"
    dunder = any(part.startswith("__") for part in text.split("."))
    return "is not a name of a weight" if dunder else ""


_integer = _of(int, "an integer")
_boolean = _of(bool, "true or false")
_any_text = _text(lambda _: "")
_name = _text(_name_fault)
_tensor_name = _text(_tensor_name_fault)
_plain = _text(lambda text: "" if _PLAIN.fullmatch(text) else "is not a plain name")
_quotable = _text(lambda text: "" if is_quotable(text) or not text else "cannot be quoted")
_operator = _text(operator_fault)
_size = _text(expression_fault)
_texts = _table(_any_text, _any_text)

_device = _record(lacks="index", type=_name, index=_optional(_integer))
_hint = _union(as_int=_integer, as_bool=_boolean, as_float=_number)
_expression = _record(lacks="hint", expr_str=_size, hint=_optional(_hint))
_sym_int = _union(as_expr=_expression, as_int=_integer)
_sym_float = _union(as_expr=_expression, as_float=_number)
_sym_bool = _union(as_expr=_expression, as_bool=_boolean)
_tensor_meta = _record(
    dtype=_integer,
    sizes=_list(_sym_int),
    requires_grad=_boolean,
    device=_device,
    strides=_list(_sym_int),
    storage_offset=_sym_int,
    layout=_integer,
)
_int_argument = _union(as_name=_name, as_int=_integer)
_float_argument = _union(as_name=_name, as_float=_number)
_bool_argument = _union(as_name=_name, as_bool=_boolean)
_tensor = _record(name=_name)
_optional_tensor = _union(as_tensor=_tensor, as_none=_boolean)
_custom_object = _record(name=_tensor_name, class_fqn=_plain)


def _nested_graph(value: Any, path: Path) -> None:
    _check_depth(path)
    _graph(value, path)


def _nested_argument(value: Any, path: Path) -> None:
    _check_depth(path)
    _argument(value, path)


def _check_depth(path: Path) -> None:
    here = path
    for _ in range(MAX_DEPTH):
        if here is None:
            return
        here = here[0]
    raise MalformedError(None, f"is nested deeper than {MAX_DEPTH} levels")


_ARGUMENTS: Mapping[str, Check] = {
    "as_none": _boolean,
    "as_tensor": _tensor,
    "as_tensors": _list(_tensor),
    "as_int": _integer,
    "as_ints": _list(_integer),
    "as_float": _number,
    "as_floats": _list(_number),
    "as_string": _any_text,
    "as_strings": _list(_any_text),
    "as_sym_int": _int_argument,
    "as_sym_ints": _list(_int_argument),
    "as_scalar_type": _integer,
    "as_memory_format": _integer,
    "as_layout": _integer,
    "as_device": _device,
    "as_bool": _boolean,
    "as_bools": _list(_boolean),
    "as_sym_bool": _bool_argument,
    "as_sym_bools": _list(_bool_argument),
    "as_graph": _record(name=_name, graph=_nested_graph),
    "as_optional_tensors": _list(_optional_tensor),
    "as_custom_obj": _custom_object,
    "as_operator": _operator,
    "as_sym_float": _float_argument,
    "as_sym_floats": _list(_float_argument),
    "as_optional_tensor": _optional_tensor,
    "as_complex": _record(real=_number, imag=_number),
    "as_nested_tensors": _list(_list(_tensor)),
    "as_int_lists": _list(_list(_integer)),
    "as_string_to_argument": _table(_any_text, _nested_argument),
    "as_float_lists": _list(_list(_number)),
}
_argument = _union(**_ARGUMENTS)
# Values of inputs go into the text of guards.
_input = _union(**{**_ARGUMENTS, "as_string": _quotable})
_node = _record(
    lacks="is_hop_single_tensor_return name",
    target=_operator,
    inputs=_list(_record(lacks="kind", name=_name, arg=_argument, kind=_optional(_integer))),
    outputs=_list(_argument),
    metadata=_texts,
    is_hop_single_tensor_return=_optional(_boolean),
    name=_optional(_name),
)
_graph = _record(
    lacks="is_single_tensor_return custom_obj_values sym_float_values",
    inputs=_list(_input),
    outputs=_list(_argument),
    nodes=_list(_node),
    tensor_values=_table(_name, _tensor_meta),
    sym_int_values=_table(_name, _sym_int),
    sym_bool_values=_table(_name, _sym_bool),
    sym_float_values=_table(_name, _sym_float),
    is_single_tensor_return=_boolean,
    custom_obj_values=_table(_name, _custom_object),
)
_constant = _union(
    as_none=_boolean, as_int=_integer, as_float=_number, as_string=_quotable, as_bool=_boolean
)
_token = _record(arg=_record(name=_name))
_input_spec = _union(
    user_input=_record(arg=_input),
    parameter=_record(arg=_tensor, parameter_name=_tensor_name),
    buffer=_record(arg=_tensor, buffer_name=_tensor_name, persistent=_boolean),
    tensor_constant=_record(arg=_tensor, tensor_constant_name=_tensor_name),
    custom_obj=_record(arg=_custom_object, custom_obj_name=_tensor_name),
    token=_token,
    constant_input=_record(name=_name, value=_constant),
)
_output_spec = _union(
    user_output=_record(arg=_argument),
    loss_output=_record(arg=_tensor),
    buffer_mutation=_record(arg=_tensor, buffer_name=_tensor_name),
    gradient_to_parameter=_record(arg=_tensor, parameter_name=_tensor_name),
    gradient_to_user_input=_record(arg=_tensor, user_input_name=_name),
    user_input_mutation=_record(arg=_tensor, user_input_name=_name),
    token=_token,
    parameter_mutation=_record(arg=_tensor, parameter_name=_tensor_name),
)
_call_signature = _record(
    lacks="forward_arg_names",
    inputs=_list(_input),
    outputs=_list(_argument),
    in_spec=_text(lambda text: treespec_fault(text, keywords=True)),
    out_spec=_text(lambda text: treespec_fault(text, keywords=False)),
    forward_arg_names=_optional(_list(_name)),
)
_module = _record(
    lacks="metadata treespec_namedtuple_fields",
    graph=_graph,
    signature=_record(input_specs=_list(_input_spec), output_specs=_list(_output_spec)),
    module_call_graph=_list(
        _record(lacks="signature", fqn=_any_text, signature=_optional(_call_signature))
    ),
    metadata=_texts,
    treespec_namedtuple_fields=_table(_plain, _record(field_names=_list(_name))),
)
PROGRAM = _record(
    lacks="verifiers torch_version guards_code",
    graph_module=_module,
    opset_version=_table(_plain, _integer),
    range_constraints=_table(
        _size, _record(min_val=_optional(_integer), max_val=_optional(_integer))
    ),
    schema_version=_record(major=_integer, minor=_integer),
    verifiers=_list(_plain),
    torch_version=_any_text,
    guards_code=_list(_text(guard_fault)),
)
PAYLOADS = _record(
    config=_table(
        _tensor_name,
        _record(
            path_name=_plain,
            is_param=_boolean,
            use_pickle=_boolean,
            tensor_meta=_optional(_tensor_meta),
        ),
    )
)
