"""Terms and a table to a matrix with patsy's columns: their names and their order.

Terms without numeric factors come first, then those of each set of numeric factors in
the order in which the sets appear; among these, low orders first. Redundancy is avoided
within such a set only, and as ``jg.lmm`` does it.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.compat.statsmodels.patsy import levels
from jaxglmm.compat.statsmodels.patsy.functions import evaluate, names_used
from jaxglmm.compat.statsmodels.patsy.levels import CodedLevels
from jaxglmm.compat.statsmodels.patsy.text import Term
from jaxglmm.formula.coding import Product, plan
from jaxglmm.formula.encode import Recipe, Values, fill
from jaxglmm.formula.terms import Atom
from jaxglmm.formula.terms import Term as Atoms

MODULE = "__module__"


@dataclass
class Matrix:
    """A matrix that was learned: its columns, and how to make them of new data.

    terms: in order; columns: of each term; factors: text -> ``CodedLevels``, or the
    suffixes of its numeric columns; state: text -> what its functions remember.
    """

    terms: tuple[Term, ...]
    names: list[str]
    columns: list[list[int]]
    factors: dict[str, CodedLevels | tuple[str, ...]]
    plans: tuple[tuple[Product, ...], ...]
    recipes: list[Recipe]
    state: dict[str, dict] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    values: np.ndarray | None = None  # (n, p), where it was made whole

    @property
    def term_columns(self) -> dict[str, list[int]]:
        """Name of each term -> its columns."""
        named = (":".join(term) or "Intercept" for term in self.terms)
        return dict(zip(named, self.columns, strict=True))

    def levels_of(self, term: str) -> list[str] | None:
        """The levels of a term that is one factor, as they stand in names."""
        found = self.factors.get(term)
        if not isinstance(found, CodedLevels):
            return None
        return [levels.shown(level) for level in found.levels]

    def apply(self, data: pd.DataFrame) -> np.ndarray:
        """(m, p) the same columns of new data; rows with missing values are NaN.

        Raises:
            FormulaError: a factor that cannot be evaluated.
            DataError: levels that were not in the data of the model.
        """
        values: dict[str, Values] = {}
        for text, known in self.factors.items():
            found = evaluate(text, data, self.context, self.state.get(text, {}))
            values[text] = _again(text, found, known, data)
        return fill(self.recipes, values, len(data))

    def __getstate__(self) -> dict:
        kept = {}
        for name, value in self.context.items():
            if isinstance(value, ModuleType):
                kept[name] = (MODULE, value.__name__)
                continue
            try:
                pickle.dumps(value)
            except Exception:  # a function of the user's that no pickle can hold
                continue
            kept[name] = value
        return {**self.__dict__, "context": kept}

    def __setstate__(self, state: dict) -> None:
        from importlib import import_module

        self.__dict__.update(state)
        for name, value in self.context.items():
            if isinstance(value, tuple) and len(value) == 2 and value[0] == MODULE:
                self.context[name] = import_module(value[1])


def learn(
    terms: Sequence[Term],
    data: pd.DataFrame,
    context: Mapping[str, Any],
    sparse: bool = False,
) -> tuple[Matrix, Any]:
    """Make the matrix of some terms.

    Args:
        terms: as ``text.parse`` gives them.
        data: the frame.
        context: the caller's names.
        sparse: give a SciPy sparse matrix.

    Returns:
        What was learned, and (n, p) the matrix.

    Raises:
        FormulaError, DataError: a factor that cannot be evaluated or used.
    """
    factors: dict[str, CodedLevels | tuple[str, ...]] = {}
    values: dict[str, Values] = {}
    state: dict[str, dict] = {}
    used: dict[str, Any] = {}
    for text in dict.fromkeys(f for term in terms for f in term):
        used |= names_used(text, data, context)
        own: dict = {}
        found = evaluate(text, data, context, own)
        factors[text], values[text] = _first(text, found, data)
        if own:
            state[text] = own
    ordered = in_order(terms, factors)
    plans = plan(
        [Atoms(tuple(Atom(f, False) for f in term)) for term in ordered],
        lambda text: isinstance(factors[text], CodedLevels),
    )
    coded: dict = {}
    recipes: list[Recipe] = []
    columns: list[list[int]] = []
    for products in plans:
        start = len(recipes)
        for product in products:
            recipes += _recipes(product, factors, coded)
        columns.append(list(range(start, len(recipes))))
    names = [name for name, _ in recipes]
    made = Matrix(tuple(ordered), names, columns, factors, plans, recipes, state, used)
    if sparse:
        return made, _sparse(plans, factors, coded, values, len(data))
    return made, fill(recipes, values, len(data))


def in_order(terms: Sequence[Term], factors: Mapping[str, Any]) -> list[Term]:
    """Terms by their numeric factors, then by their order of interaction."""
    buckets: dict[frozenset[str], list[Term]] = {frozenset(): []}
    for term in terms:
        numeric = frozenset(f for f in term if not isinstance(factors[f], CodedLevels))
        buckets.setdefault(numeric, []).append(term)
    return [term for bucket in buckets.values() for term in sorted(bucket, key=len)]


def _recipes(product: Product, factors: Mapping, coded: dict) -> list[Recipe]:
    """Name of each column of a product, and its parts; the first runs fastest."""
    choices = []
    for text, reduced in product:
        known = factors[text]
        if isinstance(known, CodedLevels):
            matrix, suffixes = _coded(text, reduced, factors, coded)
            table = np.vstack([matrix, np.full((1, matrix.shape[1]), np.nan)])
            choices.append(
                [(text + s, (text, table[:, k], k)) for k, s in enumerate(suffixes)]
            )
        else:
            choices.append([(text + s, (text, None, k)) for k, s in enumerate(known)])
    found = []
    for combination in itertools.product(*reversed(choices)):
        ordered = combination[::-1]
        name = ":".join(part[0] for part in ordered) or "Intercept"
        found.append((name, [part[1] for part in ordered]))
    return found


def _coded(text: str, reduced: bool, factors: Mapping, coded: dict):
    key = (text, reduced)
    if key not in coded:
        coded[key] = factors[text].coded(text, reduced)
    return coded[key]


def _sparse(plans, factors, coded, values, n: int) -> Any:
    """The matrix of all products, never dense where factors are indicators."""
    from scipy import sparse

    blocks: list[Any] = []
    for product in (p for products in plans for p in products):
        whole: Any = sparse.csr_array(np.ones((n, 1)))
        for text, reduced in product:
            if isinstance(factors[text], CodedLevels):
                matrix, _ = _coded(text, reduced, factors, coded)
                table = np.vstack([matrix, np.zeros((1, matrix.shape[1]))])
                part = sparse.csr_array(sparse.csr_array(table)[values[text]])
            else:
                part = sparse.csr_array(np.column_stack(values[text]))
            whole = _by_rows(whole, part)
        blocks.append(whole)
    if not blocks:
        return sparse.csr_array((n, 0))
    return sparse.hstack(blocks, format="csr")


def _by_rows(A: Any, B: Any) -> Any:
    """Row by row all products of a column of A and one of B, A's running fastest."""
    from scipy import sparse

    if (np.diff(B.indptr) == 1).all():  # indicators
        rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
        columns = A.indices + A.shape[1] * B.indices.astype(np.int64)[rows]
        shape = (A.shape[0], A.shape[1] * B.shape[1])
        return sparse.csr_array((A.data * B.data[rows], (rows, columns)), shape=shape)
    parts = [A.multiply(B[:, [j]]) for j in range(B.shape[1])]
    return sparse.csr_array(sparse.hstack(parts, format="csr"))


# Values of factors --------------------------------------------------------------------


def _first(text: str, found: Any, data: pd.DataFrame):
    """What a factor is, and its values."""
    _check_rows(text, found, data)
    if isinstance(found, pd.DataFrame):
        return tuple(f"[{c}]" for c in found.columns), _many(text, found)
    parts = _parts(found)
    if parts is not None:
        return tuple(f"[{k}]" for k in parts), _many(text, pd.DataFrame(parts))
    if not levels.is_factor(found):
        array = _array(text, found)
        if array.ndim == 1:
            return ("",), (array,)
        return tuple(f"[{j}]" for j in range(array.shape[1])), tuple(array.T)
    codes, known = levels.read_levels(text, found)
    contrast = found.contrast if isinstance(found, levels.PatsyCall) else None
    return CodedLevels(known, contrast), codes


def _again(text: str, found: Any, known: Any, data: pd.DataFrame) -> Values:
    """Values of a factor in new data."""
    _check_rows(text, found, data)
    if isinstance(known, CodedLevels):
        return levels.known_codes(text, found, known)
    if isinstance(found, pd.DataFrame):
        values = _many(text, found)
    elif _parts(found) is not None:
        values = _many(text, pd.DataFrame(_parts(found)))
    else:
        if levels.is_factor(found):
            found = _as_numbers(text, found)
        array = _array(text, found)
        values = (array,) if array.ndim == 1 else tuple(array.T)
    if len(values) != len(known):
        raise DataError(
            f"new data: {text!r} has {len(values)} columns; it had {len(known)}"
        )
    return values


def _parts(found: Any) -> dict | None:
    """formulaic's several columns, by name."""
    if hasattr(found, "__formulaic_metadata__"):
        found = found.__wrapped__
    if not isinstance(found, dict):
        return None
    return {str(k): v for k, v in found.items() if not str(k).startswith("__")}


def _as_numbers(text: str, found: Any) -> np.ndarray:
    """Numbers that came as booleans, objects or all missing."""
    values = found.values if isinstance(found, levels.PatsyCall) else found
    try:
        return pd.Series(np.asarray(values, dtype=object)).astype(float).to_numpy()
    except (TypeError, ValueError):
        raise DataError(
            f"new data: {text!r} was numeric in the model, but is text now"
        ) from None


def _array(text: str, found: Any) -> np.ndarray:
    try:
        if isinstance(found, pd.Series):
            return found.to_numpy(float, na_value=np.nan)
        array = np.asarray(found)
        if array.dtype.kind == "c":
            raise TypeError
        array = array.astype(float)
    except (TypeError, ValueError):
        raise DataError(f"{text!r} is not made of real numbers") from None
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim > 2:
        raise DataError(f"{text!r} has {array.ndim} dimensions; it must have 1 or 2")
    return array


def _many(text: str, frame: pd.DataFrame) -> tuple[np.ndarray, ...]:
    return tuple(_array(f"{text}[{c}]", frame.iloc[:, j]) for j, c in enumerate(frame))


def _check_rows(text: str, found: Any, data: pd.DataFrame) -> None:
    """A value a row, and labels that are the data's."""
    values = found.values if isinstance(found, levels.PatsyCall) else found
    if callable(values) and not hasattr(values, "__len__"):
        raise FormulaError(f"{text!r} is a function, not a variable; give it arguments")
    if isinstance(values, pd.Series | pd.DataFrame) and len(values) == len(data):
        fresh = isinstance(values.index, pd.RangeIndex) and values.index.start == 0
        if not fresh and not values.index.equals(data.index):
            raise DataError(f"the row labels of {text!r} are not those of the data")
        return
    parts = _parts(values)
    if parts:
        values = next(iter(parts.values()))
    n = len(values) if np.ndim(values) else 1
    if n != len(data):
        raise DataError(f"{text!r} gives {n} values for {len(data)} rows")
