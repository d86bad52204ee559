"""Evaluate one factor of a formula: ``log(x)``, ``poly(x, 2)``, ``C(a, Sum)``.

The evaluation and the transforms that remember what they saw (``scale``, ``center``,
``poly``, ``bs``, ``cr``) are formulaic's. Names are looked up in the data first, then
in the transforms, then in the caller's variables, then in Python's builtins: a variable
``C`` or ``scale`` that happens to exist in the caller's frame changes no formula.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.formula.contrasts import Marked, mark
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.reading import is_text, not_numeric
from jaxglmm.formula.tables import Column

PLAIN: dict[str, Any] = {  # nothing to remember, so formulaic need not be imported
    "I": lambda x: x,
    "np": np,
    "TRUE": True,
    "FALSE": False,
    **{
        name: getattr(np, name)
        for name in (
            *("log", "log2", "log10", "log1p", "exp", "exp2", "expm1"),
            *("sqrt", "abs", "sin", "cos", "tan"),
        )
    },
}
_BACKTICKS = re.compile(r"`([^`]*)`")


@dataclass(frozen=True)
class Expression:
    """Python text with plain names, and which names it uses."""

    text: str
    code: str
    names: frozenset[str]  # could be columns
    called: frozenset[str]  # stand before a bracket: functions
    aliases: tuple[tuple[str, str], ...]  # plain name -> column that was `quoted`


@lru_cache(maxsize=1024)
def read_expression(text: str) -> Expression:
    """Parse the text of one factor."""
    aliases: dict[str, str] = {}

    def plain(found: re.Match) -> str:
        name = found.group(1)
        if name.isidentifier():
            return name
        alias = "_" + re.sub(r"\W", "_", name)
        while aliases.get(alias, name) != name:
            alias += "_"
        aliases[alias] = name
        return alias

    code = _BACKTICKS.sub(plain, text)
    try:
        tree = ast.parse(code, mode="eval")
    except SyntaxError:
        raise FormulaError(f"cannot read the expression {text!r}") from None
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - called
    return Expression(
        text,
        code,
        frozenset(aliases.get(n, n) for n in names),
        frozenset(called),
        tuple(aliases.items()),
    )


def variables_of(expr: str, bare: bool, known: Mapping | frozenset) -> frozenset[str]:
    """The columns that a factor uses."""
    if bare:
        return frozenset((expr,))
    return frozenset(n for n in read_expression(expr).names if n in known)


def evaluate(
    expr: str,
    columns: Mapping[str, Column],
    state: dict,
    context: Mapping[str, Any],
    column_names: tuple[str, ...] = (),
) -> Any:
    """The raw value of an expression.

    Arithmetic sees doubles, as in R: an 8-bit count or a half-precision number never
    wraps round or loses digits. Where labels come out (``C(year)``,
    ``year.astype(str)``) or doubles do not do, integers are given as integers.

    Args:
        expr: Python text.
        columns: the columns it may use.
        state: what stateful transforms remember; filled at the first evaluation.
        context: the caller's variables.
        column_names: all columns of the data, for the message on an unknown name.
    """
    uses = read_expression(expr).names
    if any(_integers(columns[name]) for name in uses & columns.keys()):
        trial = deepcopy(state)  # what a second evaluation would find half learned
        arguments = (expr, columns, trial, context, column_names)
        try:
            value = _evaluate(*arguments, Column.as_doubles)
        except (FormulaError, DataError):
            value = None  # such as a table that is indexed: integers are needed
        if _is_numeric(value):
            state |= trial
            return value
    return _evaluate(expr, columns, state, context, column_names, _in_formula)


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
    context: Mapping[str, Any],
    column_names: tuple[str, ...],
    given: Callable[[Column], pd.Series],
) -> Any:
    """One evaluation, with columns as ``given`` makes them."""
    parsed = read_expression(expr)
    aliases = dict(parsed.aliases)
    env: dict[str, Any] = {}
    for name in {*parsed.called, *parsed.names}:
        if name in columns and name not in parsed.called:
            plain = next((a for a, c in aliases.items() if c == name), name)
            env[plain] = given(columns[name])
        else:
            env[name] = _function(name, expr, context, column_names)
    try:
        with np.errstate(all="ignore"):
            return _evaluator(parsed, columns)(parsed.code, env, {}, state, None)
    except (FormulaError, DataError):
        raise
    except Exception as error:
        texts = [columns[n] for n in sorted(parsed.names & columns.keys())]
        hint = "".join(f". {not_numeric(c)}" for c in texts if is_text(c))
        raise FormulaError(
            f"evaluating {expr!r} failed: {type(error).__name__}: {error}{hint}"
        ) from error


def _evaluator(parsed: Expression, columns: Mapping) -> Callable[..., Any]:
    """formulaic's, or Python's own where no function has to remember anything."""
    if all(name in PLAIN for name in _not_columns(parsed, columns)):
        return lambda code, env, *_: eval(code, {"__builtins__": {}}, env)
    from formulaic.utils.stateful_transforms import stateful_eval

    return stateful_eval


def _not_columns(parsed: Expression, columns: Mapping | frozenset) -> set[str]:
    """Functions, and names that are no columns."""
    return {*parsed.called, *(n for n in parsed.names if n not in columns)}


def context_used(
    exprs: list[str], columns: Mapping | frozenset, context: Mapping[str, Any]
) -> dict[str, Any]:
    """The caller's variables that the expressions use, and nothing else."""
    used: dict[str, Any] = {}
    for expr in exprs:
        for name in _not_columns(read_expression(expr), columns) - set(PLAIN):
            if name in context and name not in _transforms():
                used[name] = context[name]
    return used


def _function(name: str, expr: str, context: Mapping, column_names: tuple[str, ...]):
    """What is not a column: a transform, one of the caller's names, a builtin."""
    if name in PLAIN:
        return PLAIN[name]
    transforms = _transforms()
    if name in transforms:
        return transforms[name]
    if name in context:
        return context[name]
    if hasattr(builtins, name):
        return getattr(builtins, name)
    known = (*column_names, *transforms)
    raise FormulaError(
        f"{name!r} in {expr!r} is neither a column of the data nor a function"
        + nearest(name, known if len(known) > len(transforms) else transforms)
    )


@lru_cache(maxsize=1)
def _transforms() -> dict[str, Any]:
    """formulaic's transforms under R's and patsy's names."""
    from formulaic.transforms import TRANSFORMS
    from formulaic.transforms.cubic_spline import natural_cubic_spline
    from formulaic.utils.stateful_transforms import stateful_transform

    def ns(x, df=None, knots=None, _state={}):  # noqa: B006 - replaced by the decorator
        """R's natural spline: without the constant, which the intercept has."""
        return natural_cubic_spline(
            x, df=df, knots=knots, constraints="center", _state=_state
        )

    table = {
        **TRANSFORMS,
        "C": mark,
        "factor": mark,
        "ns": stateful_transform(ns),
        **PLAIN,
    }
    del table["hashed"], table["Q"]
    return table


def spread(expr: str, value: Any, n: int) -> Column | Marked | dict[str, np.ndarray]:
    """A raw value as one column, a marked factor, or several numeric columns.

    Args:
        expr: its text, for messages.
        value: what ``evaluate`` gave.
        n: the number of rows it must have.
    """
    if isinstance(value, Marked):
        return value
    metadata = getattr(value, "__formulaic_metadata__", None)
    names = None
    if metadata is not None:
        names, value = metadata.column_names, value.__wrapped__
    if isinstance(value, dict):
        parts = {str(k): v for k, v in value.items() if not str(k).startswith("__")}
        return {k: _numeric(f"{expr}[{k}]", v, n) for k, v in parts.items()}
    if isinstance(value, pd.DataFrame):
        return {str(k): _numeric(f"{expr}[{k}]", value[k], n) for k in value.columns}
    if isinstance(value, np.ndarray) and value.ndim == 2:
        labels = names or range(value.shape[1])
        return {
            str(k): _numeric(f"{expr}[{k}]", value[:, j], n)
            for j, k in enumerate(labels)
        }
    return _one_column(expr, value, n)


def _one_column(expr: str, value: Any, n: int) -> Column:
    from jaxglmm.formula.tables import read_column

    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return Column(expr, "number", np.full(n, float(value)))
    if callable(value) and not hasattr(value, "__len__"):
        raise FormulaError(f"{expr!r} is a function, not a variable; give it arguments")
    column = read_column(expr, value)
    if len(column) != n:
        raise DataError(f"{expr!r} gives {len(column)} values for {n} rows")
    return column


def _numeric(name: str, value: Any, n: int) -> np.ndarray:
    column = _one_column(name, value, n)
    if column.values is None or column.kind == "time":
        raise DataError(f"{name!r} is not numeric")
    return np.asarray(column.values, np.float64)
