"""The functions of formulas, and one factor's text to its value.

A function that remembers what it saw takes ``_state``, a dict; each call in a text has
its own. Splines are formulaic's, whose bases are patsy's; their columns are numbered
from 0.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.compat.statsmodels.patsy import levels
from jaxglmm.compat.statsmodels.patsy.text import plain_code
from jaxglmm.formula.notices import nearest

REMEMBER = "__remember__"


def standardize(x, center=True, rescale=True, ddof=0, _state: dict | None = None):
    """x less its mean, over its standard deviation with divisor n - ddof."""
    values = np.asarray(x, float)
    state = {} if _state is None else _state
    if "mean" not in state:
        state["mean"] = np.mean(values, axis=0)
        state["sd"] = np.std(values, axis=0, ddof=ddof)
    if center:
        values = values - state["mean"]
    return values / state["sd"] if rescale else values


def center(x, _state=None):
    """X less its mean."""
    return standardize(x, rescale=False, _state=_state)


def _columns(found: Any) -> np.ndarray:
    """formulaic's dict of columns as a matrix."""
    parts = getattr(found, "__wrapped__", found)
    return np.column_stack([np.asarray(v, float) for v in parts.values()])


def bs(x, *args, _state=None, **kwargs):
    """B-splines."""
    from formulaic.transforms.basis_spline import basis_spline

    return _columns(basis_spline(_numbers(x), *args, _state=_state, **kwargs))


def cr(x, *args, _state=None, **kwargs):
    """Natural cubic regression splines."""
    from formulaic.transforms.cubic_spline import natural_cubic_spline

    return _columns(natural_cubic_spline(_numbers(x), *args, _state=_state, **kwargs))


def cc(x, *args, _state=None, **kwargs):
    """Cyclic cubic regression splines."""
    from formulaic.transforms.cubic_spline import cyclic_cubic_spline

    return _columns(cyclic_cubic_spline(_numbers(x), *args, _state=_state, **kwargs))


def _numbers(x) -> pd.Series:
    return pd.Series(np.asarray(x, float))


def te(*bases, constraints=None, _state: dict | None = None):
    """Tensor product of bases, the last one's columns running fastest."""
    if not bases:
        raise FormulaError("te() takes one basis or more, such as te(cr(x, df=4))")
    whole = np.ones((len(np.asarray(bases[0])), 1))
    for basis in bases:
        B = np.asarray(basis, float)
        B = B[:, None] if B.ndim == 1 else B
        whole = (whole[:, :, None] * B[:, None, :]).reshape(len(whole), -1)
    if constraints is None:
        return whole
    state = {} if _state is None else _state
    if "constraints" not in state:
        if isinstance(constraints, str) and constraints != "center":
            raise FormulaError(f"te: constraints={constraints!r} must be 'center'")
        C = whole.mean(axis=0) if isinstance(constraints, str) else constraints
        state["constraints"] = np.atleast_2d(np.asarray(C, float))
    C = state["constraints"]
    Q, _ = np.linalg.qr(C.T, mode="complete")
    return whole @ Q[:, len(C) :]


STATEFUL = {
    "center": center,
    "standardize": standardize,
    "scale": standardize,
    "bs": bs,
    "cr": cr,
    "cc": cc,
    "te": te,
}
OWN = {
    **STATEFUL,
    "C": levels.mark,
    "I": lambda x: x,
    "Treatment": levels.Treatment,
    "Sum": levels.Sum,
    "Helmert": levels.Helmert,
    "Diff": levels.Diff,
    "Poly": levels.Poly,
}


@lru_cache(maxsize=1)
def _more() -> dict[str, Any]:
    """What ``jg.lmm`` knows beside patsy; found last."""
    from jaxglmm.formula.functions import transforms

    return {k: v for k, v in transforms().items() if k not in OWN}


class _Remember(ast.NodeTransformer):
    """Calls of functions as calls that say which call of the text they are."""

    def __init__(self):
        self.count = 0

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Name):
            return node
        key = ast.Constant(self.count)
        self.count += 1
        name = ast.Name(REMEMBER, ast.Load())
        return ast.Call(name, [key, node.func, *node.args], node.keywords)


@lru_cache(maxsize=1024)
def _compiled(factor: str) -> tuple[CodeType, frozenset, frozenset, dict, bool]:
    """Code, names, names called, aliases, and whether integers may grow in it."""
    code, aliases = plain_code(factor)
    try:
        tree = ast.parse(code.strip(), mode="eval")
    except SyntaxError:
        raise FormulaError(f"cannot read the expression {factor!r}") from None
    nodes = list(ast.walk(tree))
    called = frozenset(
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    bound = {
        a.arg for node in nodes if isinstance(node, ast.arguments) for a in _of(node)
    }
    stored = {
        n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    names = frozenset(n.id for n in nodes if isinstance(n, ast.Name)) - bound - stored
    grows = "C" not in called and any(
        isinstance(node, ast.Pow | ast.Mult | ast.LShift) for node in nodes
    )
    tree = ast.fix_missing_locations(_Remember().visit(tree))
    return compile(tree, "<formula>", "eval"), names, called, aliases, grows


def _of(arguments: ast.arguments) -> list[ast.arg]:
    more = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *more]


def names_used(factor: str, data: pd.DataFrame, context: Mapping) -> dict[str, Any]:
    """The caller's names that a factor uses."""
    if factor in data.columns:
        return {}
    _, names, called, _, _ = _compiled(factor)
    out = {}
    for name in names:
        if name in context and (name in called or name not in data.columns):
            out[name] = context[name]
    return out


def evaluate(
    factor: str, data: pd.DataFrame, context: Mapping[str, Any], state: dict
) -> Any:
    """The value of one factor.

    Names are columns first, then the caller's, then patsy's, then those of ``jg.lmm``.

    Args:
        factor: its text.
        data: the frame.
        context: the caller's names.
        state: what its functions remember; filled at the first evaluation.
    """
    if factor in data.columns:
        return column(data, factor, False)
    code, names, called, aliases, grows = _compiled(factor)
    env: dict[str, Any] = {"__builtins__": builtins.__dict__}
    for name in names:
        if name in aliases:
            env[name] = column(data, aliases[name], grows)
        elif name in data.columns and name not in called:
            env[name] = column(data, name, grows)
        else:
            env[name] = _function(name, factor, data, context, name in called)

    def remember(key, function, *args, **kwargs):
        remembers = any(function is own for own in STATEFUL.values())
        if remembers or hasattr(function, "__is_stateful_transform__"):
            kwargs["_state"] = state.setdefault(key, {})
        return function(*args, **kwargs)

    env[REMEMBER] = remember
    try:
        with np.errstate(all="ignore"):
            return eval(code, env)
    except (FormulaError, DataError):
        raise
    except Exception as error:
        raise FormulaError(
            f"evaluating {factor!r} failed: {type(error).__name__}: {error}"
        ) from error


def column(data: pd.DataFrame, name: str, grows: bool) -> pd.Series:
    """One column; integers that may overflow as int64, or as floats where they grow."""
    if name not in data.columns:
        raise FormulaError(
            f"no column {name!r} in the data{nearest(name, map(str, data.columns))}"
        )
    found = data[name]
    if isinstance(found, pd.DataFrame):
        raise DataError(f"column {name!r} appears {found.shape[1]} times; rename")
    dtype = found.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iu":
        small = np.dtype(np.int64 if dtype.itemsize < 8 else dtype)
        return found.astype(float) if grows else found.astype(small)
    if isinstance(dtype, np.dtype) and dtype == np.float16:
        return found.astype(float)
    return found


def _function(
    name: str, factor: str, data: pd.DataFrame, context: Mapping, called: bool
) -> Any:
    if name == "Q":
        return lambda text: column(data, text, False)
    if name in context:
        found = context[name]
        theirs = (getattr(found, "__module__", None) or "").partition(".")[0] == "patsy"
        if not (name in OWN and (theirs or (called and not callable(found)))):
            return found
    for table in (OWN, _more()):
        if name in table:
            return table[name]
    if hasattr(builtins, name):
        return getattr(builtins, name)
    known = [*map(str, data.columns), *(OWN if called else ())]
    raise FormulaError(
        f"{name!r} in {factor!r} is neither a column of the data nor a function or a "
        f"variable{nearest(name, known)}"
        if name != factor
        else f"no column {name!r} in the data{nearest(name, known)}"
    )
