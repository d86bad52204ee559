"""Evaluate one factor of a formula: ``log(x)``, ``poly(x, 2)``, ``C(a, Sum)``.

A small interpreter of the syntax tree. It knows arithmetic, comparisons, and the
functions of ``jaxglmm.formula.functions``; for a formula from a file or from somebody
else that is all (``trusted=False``). A formula that stands in the user's own Python
code may call what that code could call: the caller's functions, builtins, methods.

Names are looked up in the data first, then among the transforms, then in the caller's
variables, then in Python's builtins: a variable ``C`` or ``scale`` that happens to
exist in the caller's frame changes no formula.
"""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, FormulaError
from jaxglmm._pandas import pd
from jaxglmm.formula import functions
from jaxglmm.formula.contrasts import Marked
from jaxglmm.formula.expressions import (
    Expression,
    Name,
    column_of,
    read_expression,
    variables_of,
)
from jaxglmm.formula.functions import PLAIN, transforms
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.reading import is_text, not_numeric
from jaxglmm.formula.tables import Column
from jaxglmm.formula.text import shown

TRUST: ContextVar[bool] = ContextVar("trust", default=True)

BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
UNARY: dict[type, Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MOST = 2**63  # of a whole number that no column holds
_NUMBERS = (bool, int, float, np.number, np.bool_)


@contextmanager
def known_functions_only() -> Iterator[None]:
    """Formulas read inside may use the list of known functions, and nothing else.

    For formulas that come from elsewhere. The fits keep it: their predictions evaluate
    no more than that either.
    """
    before = TRUST.set(False)
    try:
        yield
    finally:
        TRUST.reset(before)


def evaluate(
    expr: str,
    columns: Mapping[str, Column],
    state: dict,
    context: Mapping[str, Any],
    column_names: tuple[str, ...] = (),
    trusted: bool = True,
    learning: bool = True,
) -> Any:
    """The raw value of an expression.

    Arithmetic sees doubles, as in R: an 8-bit count or a half-precision number never
    wraps round or loses digits. Where labels come out (``C(year)``,
    ``year.astype(str)``) or doubles do not do, integers are given as integers.

    Args:
        expr: its text.
        columns: the columns it may use.
        state: what stateful transforms remember; filled at the first evaluation.
        context: the caller's variables.
        column_names: all columns of the data, for the message on an unknown name.
        trusted: False for the list of known functions, ``context`` and no more.
        learning: False where ``state`` must have all that the transforms remember.

    Raises:
        FormulaError: for what the expression asks in vain.
    """
    scope = (context, column_names, trusted)
    used = variables_of(expr, False, columns)
    if any(_integers(columns[name]) for name in used):
        trial = deepcopy(state)  # what a second evaluation would find half learned
        try:
            given = Column.as_doubles
            value = _evaluate(expr, columns, trial, scope, learning, given)
        except (FormulaError, DataError):
            value = None  # such as a table that is indexed: integers are needed
        if _is_numeric(value):
            state |= trial
            return value
    return _evaluate(expr, columns, state, scope, learning, _in_formula)


def _integers(column: Column) -> bool:
    if column.kind != "number":
        return False
    return column.exact is not None or column.values.dtype.kind in "iu"  # type: ignore


def _in_formula(column: Column) -> pd.Series:
    """Integers as such, for labels and look-ups, but none that wraps round early."""
    series = column.as_series() if _integers(column) else column.as_doubles()
    small = isinstance(series.dtype, np.dtype) and series.dtype.kind in "iu"
    return series.astype(np.int64) if small and series.dtype.itemsize < 8 else series


def _is_numeric(value: Any) -> bool:
    """Whether an expression came to numbers: no labels, no factor."""
    if value is None or isinstance(value, Marked):
        return False
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, int | float | dict | pd.DataFrame)
    return isinstance(dtype, np.dtype) and dtype.kind in "iufb"


def _evaluate(
    expr: str,
    columns: Mapping[str, Column],
    state: dict,
    names: tuple[Mapping[str, Any], tuple[str, ...], bool],
    learning: bool,
    given: Callable[[Column], pd.Series],
) -> Any:
    """One evaluation, with columns as ``given`` makes them."""
    parsed = read_expression(expr)
    scope = _Scope(parsed, columns, given, *names, learning)
    try:
        with np.errstate(all="ignore"):
            return _Interpreter(scope, state, learning).value(parsed.tree)
    except (FormulaError, DataError):
        raise
    except RecursionError:
        raise FormulaError(
            f"the expression {shown(expr)} is too deep: make it a column first"
        ) from None
    except Exception as error:
        used = [columns[name] for name in sorted(variables_of(expr, False, columns))]
        hint = "".join(f". {not_numeric(c)}" for c in used if is_text(c))
        raise FormulaError(
            f"evaluating {shown(expr)} failed: {type(error).__name__}: {error}{hint}"
        ) from error


@dataclass(frozen=True)
class _Scope:
    """What names mean."""

    parsed: Expression
    columns: Mapping[str, Column]
    given: Callable[[Column], pd.Series]
    context: Mapping[str, Any]
    column_names: tuple[str, ...]
    trusted: bool
    learning: bool = True

    def lookup(self, name: Name, called: bool) -> Any:
        """The value of a name: a column, or a function where a bracket follows."""
        if not called or "." in name.text:
            column, rest = column_of(name, self.columns)
            if column is not None:
                return self._attributes(self.given(self.columns[column]), rest)
        if name.is_quoted:
            raise FormulaError(
                f"no column {name.text!r} in the data (in {shown(self.parsed.text)})"
                + nearest(name.text, self.column_names)
            )
        head, _, rest = name.text.partition(".")
        return self._attributes(self._known(head, name.text), rest, head)

    def _known(self, head: str, whole: str) -> Any:
        """What is not a column: a transform, one of the caller's names, a builtin."""
        if head in PLAIN:
            return PLAIN[head]
        if head in transforms():
            return transforms()[head]
        if head in self.context:
            return self.context[head]
        if hasattr(builtins, head):
            if self.trusted or head in functions.BUILTINS:
                return getattr(builtins, head)
            raise self.refusal(whole)
        raise self._unknown(whole)

    def _unknown(self, name: str) -> FormulaError:
        if not self.trusted and not self.learning and f"{name}(" in self.parsed.text:
            return FormulaError(
                f"{name!r} in {shown(self.parsed.text)} was a function of the user's "
                "own, and functions are not saved with a fit: pass it, as in "
                f"jg.load(path, functions={{{name!r}: {name}}})"
            )
        known = (*self.column_names, *transforms())
        text = (
            f"{name!r} in {shown(self.parsed.text)} is neither a column of the data "
            "nor a function that is known here"
            + nearest(name, known if self.column_names else transforms())
        )
        if name.partition(".")[0] != name and f"{name}(" in self.parsed.text:
            text += ". R functions with a dot in their name do not exist here"
        return FormulaError(text)

    def _attributes(self, value: Any, dotted: str, head: str = "") -> Any:
        for name in filter(None, dotted.split(".")):
            value = self.attribute(value, name, head)
        return value

    def attribute(self, value: Any, name: str, head: str = "") -> Any:
        """``value.name``, if that is on the list or the formula is trusted."""
        if value is np and name in functions.NUMPY:
            found = functions.numpy_function(name)
            return getattr(np, name) if self.trusted else found
        if self.trusted:
            return getattr(value, name)
        if head == "contr" and name in functions.CONTRASTS:
            return getattr(value, name)
        if isinstance(value, pd.Series) or _is_accessor(value):
            if name in functions.ATTRIBUTES:
                return getattr(value, name)
            if name in functions.METHODS:
                return functions.method(getattr(value, name), name)
        raise self.refusal(f"{head}.{name}" if head else f".{name}")

    def refusal(self, what: str) -> FormulaError:
        """Say what is not on the list, and how to have it all the same."""
        return FormulaError(
            f"{what!r} in {shown(self.parsed.text)} is not on the list of functions "
            "that a formula from a file or from somebody else may use (arithmetic, "
            "comparisons, NumPy's mathematical functions, the transforms). If you "
            "trust its author: jg.load(path, trusted=True), on the command line "
            "--trust-formula"
        )


def _is_accessor(value: Any) -> bool:
    """Whether it is a column's ``dt`` or ``cat``."""
    return type(value).__name__.endswith(("Properties", "CategoricalAccessor"))


class _Interpreter:
    """Values of the nodes of a tree."""

    def __init__(self, scope: _Scope, state: dict, learning: bool):
        self.scope, self.state, self.learning = scope, state, learning
        self.parsed = scope.parsed

    def value(self, node: ast.expr) -> Any:
        read = getattr(self, f"_{type(node).__name__.lower()}", None)
        return self._python(node) if read is None else read(node)

    def _constant(self, node: ast.Constant) -> Any:
        value = node.value
        if isinstance(value, int) and abs(value) >= _MOST:
            return float(value)
        if isinstance(value, bytes | complex) or value is Ellipsis:
            return self._python(node)
        return value

    def _name(self, node: ast.Name) -> Any:
        return self.scope.lookup(self.parsed.name(node.id), called=False)

    def _tuple(self, node: ast.Tuple | ast.List) -> Any:
        if any(isinstance(item, ast.Starred) for item in node.elts):
            return self._python(node)
        return tuple(self.value(item) for item in node.elts)

    def _list(self, node: ast.List) -> Any:
        found = self._tuple(node)
        return list(found) if isinstance(found, tuple) else found

    def _dict(self, node: ast.Dict) -> Any:
        if any(key is None for key in node.keys):
            return self._python(node)
        keys = [self.value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(self.value, node.values), strict=True))

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not) and not isinstance(value, bool):
            return self._python(node)
        return UNARY[type(node.op)](self._number(value, node))

    def _binop(self, node: ast.BinOp) -> Any:
        if not isinstance(node.op, ast.Pow) and type(node.op) not in BINARY:
            return self._python(node)
        # a long sum is a deep tree: go down its left side without recursion
        chain = [node]
        while isinstance(left := chain[-1].left, ast.BinOp):
            if not isinstance(left.op, ast.Pow) and type(left.op) not in BINARY:
                break
            chain.append(left)
        value = self._number(self.value(chain[-1].left), node)
        for one in reversed(chain):
            right = self._number(self.value(one.right), one)
            value = self._apply(one.op, value, right)
        return value

    def _apply(self, op: ast.operator, left: Any, right: Any) -> Any:
        plain = isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS)
        if isinstance(op, ast.Pow):
            return _power(left, right) if plain else left**right
        found = BINARY[type(op)](left, right)
        return float(found) if type(found) is int and abs(found) >= _MOST else found

    def _number(self, value: Any, node: ast.expr) -> Any:
        """Refuse to reckon with text and lists, which grow without bound."""
        if isinstance(value, str | bytes | list | tuple | dict):
            what = type(value).__name__
            what = "text" if what == "str" else f"a {what}"
            raise FormulaError(
                f"{shown(self.parsed.spelled(node))} reckons with {what}; only numbers "
                "can be added, multiplied, ..."
            )
        return value

    def _compare(self, node: ast.Compare) -> Any:
        if any(type(op) not in COMPARE for op in node.ops):
            return self._python(node)
        total, left = None, self.value(node.left)
        for op, other in zip(node.ops, node.comparators, strict=True):
            right = self.value(other)
            found = COMPARE[type(op)](left, right)
            total, left = found if total is None else total & found, right
        return total

    def _attribute(self, node: ast.Attribute) -> Any:
        return self.scope.attribute(self.value(node.value), node.attr)

    def _call(self, node: ast.Call) -> Any:
        if any(k.arg is None for k in node.keywords) or any(
            isinstance(a, ast.Starred) for a in node.args
        ):
            return self._python(node)
        if isinstance(node.func, ast.Name):
            function = self.scope.lookup(self.parsed.name(node.func.id), called=True)
        else:
            function = self.value(node.func)
        if isinstance(function, type(type)) and issubclass(function, type):
            raise self.scope.refusal(self.parsed.spelled(node.func))  # makes classes
        args = [self.value(a) for a in node.args]
        options = {k.arg: self.value(k.value) for k in node.keywords if k.arg}
        if any(name.startswith("_") for name in options):
            raise FormulaError(f"no such argument in {shown(self.parsed.text)}")
        if getattr(function, "__is_stateful_transform__", False):
            options["_state"] = self._remembered(node)
        return function(*args, **options)

    def _remembered(self, node: ast.Call) -> dict:
        """What a transform learned, under its own text."""
        text = self.parsed.spelled(node)
        if text not in self.state and not self.learning:
            raise FormulaError(
                f"what {text!r} learned from the data of the fit is not there: the "
                "file is of another version, or damaged. Fit the model again"
            )
        return self.state.setdefault(text, {})

    def _strange(self, node: ast.expr) -> str:
        """The first name in a part of the tree that stands for Python's own."""
        for n in ast.walk(node):
            name = self.parsed.name(n.id) if isinstance(n, ast.Name) else None
            if name is None or column_of(name, self.scope.columns)[0] is not None:
                continue
            if name.head not in transforms() and hasattr(builtins, name.head):
                return name.text
        return ""

    def _python(self, node: ast.expr) -> Any:
        """The rest of Python, for formulas that stand in the user's own code."""
        if not self.scope.trusted:
            raise self.scope.refusal(self._strange(node) or self.parsed.spelled(node))
        from formulaic.utils.stateful_transforms import stateful_eval

        bound = {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)} | {
            n.id
            for n in ast.walk(node)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        called = {id(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
        env = {
            n.id: self.scope.lookup(self.parsed.name(n.id), called=id(n) in called)
            for n in ast.walk(node)
            if isinstance(n, ast.Name) and n.id not in bound
        }
        return stateful_eval(ast.unparse(node), env, {}, self.state, None)


def _power(left: Any, right: Any) -> Any:
    """A power of two numbers; in floating point, since 10**10**10 has no end."""
    try:
        found = float(left) ** float(right)
    except (OverflowError, ZeroDivisionError):
        raise FormulaError(f"{left}**{right} is not a finite number") from None
    if isinstance(found, complex) or not np.isfinite(found):
        raise FormulaError(f"{left}**{right} is not a finite number")
    whole = all(isinstance(v, int | np.integer) for v in (left, right))
    return int(found) if whole and found.is_integer() and abs(found) < 2**53 else found
