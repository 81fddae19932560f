"""Text in a program that torch evaluates as Python: expressions of sizes, and guards on inputs.

torch reads them with `sympy.sympify`, which calls `eval`, and with `exec`. Here they are parsed and
never evaluated; what is not in the lists below is refused. Numbers are bounded as well, because
sympy computes `9**9**9` while it reads it.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from typing import Any

from portrt.format.operators import names

MAX_CHARS = 20_000
MAX_DEPTH = 120
# Bits that a number in an expression may reach.
MAX_BITS = 4096
# Exponents of a symbol: torch expands such powers.
MAX_DEGREE = 16

# torch's prefixes of symbols; it counts from 0 to the number of an unbacked one.
SYMBOL = re.compile(r"(?:s|u|zf|zuf|ps|i)\d{1,6}", re.ASCII)

# No escapes, brackets, colons, comments or line breaks: what sympy's own tokenizer could read
# otherwise than Python's is not in it.
_EXPRESSION_CHARS = re.compile(r"[\w .,()+\-*/%<>=!&|~']*", re.ASCII)
_GUARD_CHARS = re.compile(r"[\w .,()+\-*/%<>=!&|~'\[\]]*", re.ASCII)
_FLOAT = re.compile(r"-?\d{1,400}(\.\d{0,400})?(e[+-]?\d{1,4})?", re.ASCII)

# What sympy and torch.utils._sympy print, as text and as code, and torch's reader knows.
_FUNCTIONS = names("""
    FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift
    PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat
    TruncToInt RoundToInt RoundDecimal ToFloat Identity
    Max Min Abs floor ceiling Piecewise ExprCondPair Eq Ne Lt Le Gt Ge Equality Unequality LessThan
    StrictLessThan GreaterThan StrictGreaterThan And Or Not Pow Add Mul sqrt Rational IntInfinity
    NegativeIntInfinity Infinity NegativeInfinity NaN BooleanTrue BooleanFalse
    """)
_OPAQUE = re.compile(r"OpaqueUnaryFn_[a-z0-9_]{1,20}|BitwiseFn_bitwise_[a-z]{1,5}", re.ASCII)
_CONSTANTS = names("True False true false oo int_oo inf nan zoo")
# What code of sympy gives a symbol: facts that torch's own symbols have.
_ASSUMPTIONS = names("""
    integer positive nonnegative negative nonpositive nonzero zero real finite extended_real
    commutative
""")

# What guards call besides: SYMPY_INTERP, the functions that torch prints code for, and `math`.
_GUARD_FUNCTIONS = _FUNCTIONS | names("""
    abs min max round float int bool not_ is_non_overlapping_and_dense_indicator
    cast_symbool_to_symint_guardless isinstance len pow
""")
_GUARD_TYPES = frozenset({"int", "float", "bool", "str"})
_TENSOR_METHODS = frozenset({"size", "stride", "storage_offset", "dim", "numel", "item"})
_MATH = names("floor ceil trunc sqrt isnan isinf inf nan pow log log2 exp fabs")
_TORCH = re.compile(r"_?sym_[a-z0-9_]{1,20}", re.ASCII)

_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow", "pow", "math.pow"})
_SHIFTS = frozenset({"LShift", "RShift"})


class _RefusedError(Exception):
    """What is refused, and why."""


@lru_cache(maxsize=4096)
def expression_fault(text: str) -> str:
    """Return why an expression of sizes is refused, or an empty text."""
    return _fault(text, _EXPRESSION_CHARS, _Expression())


@lru_cache(maxsize=4096)
def guard_fault(text: str) -> str:
    """Return why a guard on inputs is refused, or an empty text."""
    return _fault(text, _GUARD_CHARS, _Guard())


def _fault(text: str, chars: re.Pattern[str], reader: _Expression) -> str:
    if len(text) > MAX_CHARS:
        return f"has {len(text)} characters, of at most {MAX_CHARS}"
    if not chars.fullmatch(text):
        return "has a character that no expression of sizes has"
    try:
        reader.bits(ast.parse(text.strip(), mode="eval").body, 0)
    except _RefusedError as err:
        return str(err)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "is no expression"
    return ""


class _Expression:
    """Walks an expression of sizes, and bounds the numbers in it."""

    functions = _FUNCTIONS

    def bits(self, node: ast.expr, depth: int) -> int:
        """Return an upper bound of the bits of a value.

        Raises:
            _RefusedError: The expression has something that is in no list.
        """
        if depth > MAX_DEPTH:
            raise _RefusedError(f"is nested deeper than {MAX_DEPTH} levels")
        reads: dict[type[ast.AST], Any] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._binary,
            ast.Compare: self._compare,
            ast.BoolOp: self._boolean,
            ast.Call: self._call,
            ast.Attribute: self._place,
            ast.Subscript: self._place,
        }
        read = reads.get(type(node))
        if read is None:
            raise _RefusedError(f"has {_kind(node)}")
        found: int = read(node, depth + 1)
        if found > MAX_BITS:
            raise _RefusedError(f"computes a number of more than {MAX_BITS} bits")
        return found

    def _constant(self, node: ast.Constant, _depth: int) -> int:
        if isinstance(node.value, int):  # bool, too
            return node.value.bit_length()
        if isinstance(node.value, float):
            return 64
        raise _RefusedError(f"has {_kind(node)}")

    def _name(self, node: ast.Name, _depth: int) -> int:
        if node.id in _CONSTANTS or SYMBOL.fullmatch(node.id):
            return 1
        raise _RefusedError(f"has the name {node.id!r:.60}")

    def _unary(self, node: ast.UnaryOp, depth: int) -> int:
        return self.bits(node.operand, depth)

    def _binary(self, node: ast.BinOp, depth: int) -> int:
        left, right = self.bits(node.left, depth), self.bits(node.right, depth)
        if isinstance(node.op, (ast.MatMult, ast.LShift, ast.RShift)):
            raise _RefusedError("has an operator that no expression of sizes has")
        if isinstance(node.op, ast.Pow):
            return self._power(left, node.left, node.right)
        if isinstance(node.op, (ast.Add, ast.Sub)):
            return max(left, right) + 1
        return left + right

    def _power(self, bits: int, base: ast.expr, exponent: ast.expr) -> int:
        number = _number(exponent)
        if number is None:  # of a symbol alone: nothing of it is computed
            if _is_symbol(exponent):
                return bits
            raise _RefusedError("has a power whose exponent is computed")
        inside = list(ast.walk(base))
        if any(_is_symbol(part) or isinstance(part, ast.Subscript) for part in inside):
            nested = any(_is_power(part) for part in inside)
            if not abs(number) <= (2 if nested else MAX_DEGREE):
                raise _RefusedError(f"has a power above {MAX_DEGREE}")
        return max(bits, 1) * int(min(abs(number), MAX_BITS) + 1)

    def _compare(self, node: ast.Compare, depth: int) -> int:
        for operator in node.ops:
            if isinstance(operator, (ast.In, ast.NotIn)):
                raise _RefusedError("has an operator that no expression of sizes has")
        return max(self.bits(part, depth) for part in (node.left, *node.comparators))

    def _boolean(self, node: ast.BoolOp, depth: int) -> int:
        return max(self.bits(part, depth) for part in node.values)

    def _call(self, node: ast.Call, depth: int) -> int:
        leaf = _leaf(node)
        if leaf is not None:
            return leaf
        name = self._called(node, depth)
        if node.keywords:
            raise _RefusedError(f"calls {name} with keywords")
        taken = [self._argument(part, depth) for part in node.args]
        if len(node.args) == 2 and name in (_POWERS | _SHIFTS):
            return self._power(taken[0] + 1, node.args[0], node.args[1])
        return sum(taken) + len(taken) + 1

    def _argument(self, node: ast.expr, depth: int) -> int:
        if isinstance(node, ast.Tuple):  # of Piecewise
            return sum(self.bits(part, depth) for part in node.elts)
        return self.bits(node, depth)

    def _called(self, node: ast.Call, _depth: int) -> str:
        function = node.func
        if isinstance(function, ast.Name) and (
            function.id in self.functions or _OPAQUE.fullmatch(function.id)
        ):
            return function.id
        raise _RefusedError(f"calls {ast.unparse(function)!r:.60}")

    def _place(self, node: ast.expr, _depth: int) -> int:
        raise _RefusedError(f"has {_kind(node)}")


class _Guard(_Expression):
    """Walks a guard: an expression of parts of `L`, the arguments by name."""

    functions = _GUARD_FUNCTIONS

    def _constant(self, node: ast.Constant, depth: int) -> int:
        if node.value is None or isinstance(node.value, str):  # compared with an argument
            return 1
        return super()._constant(node, depth)

    def _power(self, bits: int, base: ast.expr, exponent: ast.expr) -> int:
        if _number(exponent) is None:  # here it has a value, and would be computed
            raise _RefusedError("has a power whose exponent is computed")
        return super()._power(bits, base, exponent)

    def _place(self, node: ast.expr, depth: int) -> int:
        """Read a part of an argument, such as `L['x'][0].size()[1]`, or a number of `math`."""
        if isinstance(node, ast.Attribute) and _is_name(node.value, "math"):
            if node.attr in _MATH:
                return 1
            raise _RefusedError(f"has math.{node.attr:.60}")
        self._part(node, depth)
        return 1

    def _part(self, node: ast.expr, depth: int) -> None:
        while not isinstance(node, ast.Name):
            depth += 1
            if depth > MAX_DEPTH:
                raise _RefusedError(f"is nested deeper than {MAX_DEPTH} levels")
            outer = self._outer(node)
            if outer is None:
                raise _RefusedError(f"has {_kind(node)}")
            node = outer
        if node.id != "L":
            raise _RefusedError(f"has a part of {node.id!r:.60}")

    def _outer(self, node: ast.expr) -> ast.expr | None:
        """Return what a part is a part of."""
        if isinstance(node, ast.Attribute) and not node.attr.startswith("_"):
            return node.value
        if isinstance(node, ast.Subscript) and _is_key(node.slice):
            return node.value
        return node.func if isinstance(node, ast.Call) and self._is_method(node) else None

    def _is_method(self, node: ast.Call) -> bool:
        function = node.func
        numbers = all(_number(item) is not None for item in node.args)
        return (
            isinstance(function, ast.Attribute)
            and function.attr in _TENSOR_METHODS
            and numbers
            and not node.keywords
        )

    def _called(self, node: ast.Call, depth: int) -> str:
        function = node.func
        if isinstance(function, ast.Attribute):
            if _is_name(function.value, "math") and function.attr in _MATH:
                return f"math.{function.attr}"
            if _is_name(function.value, "torch") and _TORCH.fullmatch(function.attr):
                return function.attr
            raise _RefusedError(f"calls {ast.unparse(function)!r:.60}")
        return super()._called(node, depth)

    def _call(self, node: ast.Call, depth: int) -> int:
        if isinstance(node.func, ast.Attribute) and self._is_method(node):
            self._part(node, depth)
            return 1
        return super()._call(node, depth)

    def _argument(self, node: ast.expr, depth: int) -> int:
        if isinstance(node, ast.Name) and node.id in _GUARD_TYPES:  # of isinstance
            return 1
        return super()._argument(node, depth)


def _kind(node: ast.expr) -> str:
    return f"a part of the kind {type(node).__name__}: {ast.unparse(node)!r:.60}"


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_key(node: ast.expr) -> bool:
    """Return whether this is an integer, or a text that needs no escapes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return True  # of the characters of a guard
    return isinstance(_number(node), int)


def _is_symbol(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "Symbol"
    return isinstance(node, ast.Name) and SYMBOL.fullmatch(node.id) is not None


def _is_power(node: ast.AST) -> bool:
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    return isinstance(node, ast.Pow) or name in _POWERS


def _leaf(node: ast.Call) -> int | None:
    """Return the bits of a symbol or a number in code of sympy; None for other calls.

    Raises:
        _RefusedError: It has another form than torch writes.
    """
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in ("Symbol", "Integer", "Float"):
        return None
    text = ast.unparse(node)
    first = node.args[0] if len(node.args) == 1 else None
    given = {keyword.arg: _number(keyword.value) for keyword in node.keywords}
    if name == "Integer" and isinstance(number := first and _number(first), int) and not given:
        return number.bit_length()
    value = first.value if isinstance(first, ast.Constant) else None
    if not isinstance(value, str):
        raise _RefusedError(f"has {text!r:.60}")
    if name == "Symbol" and SYMBOL.fullmatch(value):
        facts = all(type(fact) is bool and key in _ASSUMPTIONS for key, fact in given.items())
        if facts:
            return 1
    precision = given.get("precision", 53)
    is_number = name == "Float" and _FLOAT.fullmatch(value) and given.keys() <= {"precision"}
    if is_number and type(precision) is int and 0 < precision <= 1000:
        return 64
    raise _RefusedError(f"has {text!r:.60}")


def _number(node: ast.expr) -> float | int | None:
    """Return the number that a constant is, with its sign; of sympy's code, too."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        found = _number(node.operand)
        return None if found is None else -found
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        parts = [_number(part) for part in node.args]
        if node.func.id == "Integer" and len(parts) == 1:
            return parts[0]
        if node.func.id == "Rational" and len(parts) == 2 and parts[0] is not None and parts[1]:
            return parts[0] / parts[1]
    return None
