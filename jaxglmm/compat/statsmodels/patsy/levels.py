"""Levels of a factor, and the contrasts that make columns of them.

A contrast is an object with ``code_with_intercept(levels)`` and
``code_without_intercept(levels)``, as patsy asks of one; each returns a matrix (levels,
columns) and what is written behind the factor's name for each column. The user's own
classes, and patsy's, serve as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.formula.levels import factorize, match
from jaxglmm.formula.notices import listed

Coded = tuple[np.ndarray, list[str]]
NAMED_POWERS = (".Constant", ".Linear", ".Quadratic", ".Cubic")


def shown(level: Any) -> str:
    """A level as it stands in a column's name: text as it is, all else by ``repr``."""
    if isinstance(level, str):
        return str(level)
    return repr(level.item() if isinstance(level, np.generic) else level)


def _position(levels: list, wanted: Any) -> int:
    """Where a level stands, given itself or by its position."""
    for i, level in enumerate(levels):
        if level is wanted or (type(level) is type(wanted) and level == wanted):
            return i
    if wanted in levels:
        return levels.index(wanted)
    if isinstance(wanted, int | np.integer) and not isinstance(wanted, bool):
        if -len(levels) <= wanted < len(levels):
            return int(wanted) % len(levels)
        raise FormulaError(
            f"level {wanted} is out of range: there are {len(levels)} levels, "
            f"{listed(levels)}"
        )
    raise FormulaError(f"there is no level {wanted!r}; there are {listed(levels)}")


@dataclass
class Treatment:
    """Differences from a reference: a level or its position; the first by default."""

    reference: Any = None

    def code_with_intercept(self, levels: list) -> Coded:
        """An indicator a level."""
        return np.eye(len(levels)), [f"[{shown(level)}]" for level in levels]

    def code_without_intercept(self, levels: list) -> Coded:
        """An indicator of every level but the reference."""
        first = 0 if self.reference is None else _position(levels, self.reference)
        rest = [i for i in range(len(levels)) if i != first]
        names = [f"[T.{shown(levels[i])}]" for i in rest]
        return np.eye(len(levels))[:, rest], names


@dataclass
class Sum:
    """Deviations from the mean of the levels; one, the last by default, is left out."""

    omit: Any = None

    def code_with_intercept(self, levels: list) -> Coded:
        """The mean, and deviations."""
        matrix, names = self.code_without_intercept(levels)
        ones = np.ones((len(levels), 1))
        return np.column_stack([ones, matrix]), ["[mean]", *names]

    def code_without_intercept(self, levels: list) -> Coded:
        """Deviations."""
        last = len(levels) - 1
        omit = last if self.omit is None else _position(levels, self.omit)
        rest = [i for i in range(len(levels)) if i != omit]
        matrix = np.eye(len(levels))[:, rest]
        matrix[omit] = -1.0
        return matrix, [f"[S.{shown(levels[i])}]" for i in rest]


@dataclass
class Helmert:
    """Each level against the mean of those before it."""

    def code_with_intercept(self, levels: list) -> Coded:
        """The mean, and the contrasts."""
        matrix, names = self.code_without_intercept(levels)
        ones = np.ones((len(levels), 1))
        return np.column_stack([ones, matrix]), ["[H.intercept]", *names]

    def code_without_intercept(self, levels: list) -> Coded:
        """The contrasts."""
        J = len(levels)
        matrix = np.zeros((J, J - 1))
        for j in range(J - 1):
            matrix[: j + 1, j] = -1.0
            matrix[j + 1, j] = j + 1
        return matrix, [f"[H.{shown(level)}]" for level in levels[1:]]


@dataclass
class Diff:
    """Each level against the one after it."""

    def code_with_intercept(self, levels: list) -> Coded:
        """The mean, and the contrasts; names are those of all levels, as patsy's."""
        matrix, _ = self.code_without_intercept(levels)
        ones = np.ones((len(levels), 1))
        names = [f"[D.{shown(level)}]" for level in levels]
        return np.column_stack([ones, matrix]), names

    def code_without_intercept(self, levels: list) -> Coded:
        """The contrasts."""
        J = len(levels)
        matrix = np.zeros((J, J - 1))
        for j in range(J - 1):
            matrix[: j + 1, j] = (j + 1 - J) / J
            matrix[j + 1 :, j] = (j + 1) / J
        return matrix, [f"[D.{shown(level)}]" for level in levels[:-1]]


@dataclass
class Poly:
    """Orthogonal polynomials in the levels' scores, 0, 1, ... by default."""

    scores: Any = None

    def _coded(self, levels: list) -> Coded:
        J = len(levels)
        given = range(J) if self.scores is None else self.scores
        scores = np.asarray(given, float)
        if scores.shape != (J,):
            raise FormulaError(f"Poly: {scores.size} scores for {J} levels")
        powers = np.vander(scores - scores.mean(), J, increasing=True)
        Q, R = np.linalg.qr(powers)
        raw = Q * np.diagonal(R)
        matrix = raw / np.sqrt(np.sum(raw**2, axis=0))
        matrix[:, 0] = 1.0
        names = list(NAMED_POWERS[:J])
        return matrix, names + [f"^{k}" for k in range(len(names), J)]

    def code_with_intercept(self, levels: list) -> Coded:
        """Powers from 0 on."""
        return self._coded(levels)

    def code_without_intercept(self, levels: list) -> Coded:
        """Powers from 1 on."""
        matrix, names = self._coded(levels)
        return matrix[:, 1:], names[1:]


@dataclass(frozen=True)
class CodedLevels:
    """Levels (J,) and contrast of one factor."""

    levels: np.ndarray
    contrast: Any

    def coded(self, name: str, reduced: bool) -> Coded:
        """Matrix (J, columns) and suffixes of the names.

        Args:
            name: of the factor, for messages.
            reduced: without the constant, beside terms that have it.
        """
        levels = [x.item() if isinstance(x, np.generic) else x for x in self.levels]
        try:
            matrix, suffixes = self._coded(levels, reduced)
        except Exception as error:
            raise FormulaError(
                f"the contrasts of {name!r} do not fit its levels {listed(levels)}: "
                f"{error}"
            ) from error
        matrix = np.asarray(matrix, float).reshape(len(levels), -1)
        return matrix, list(map(str, suffixes))

    def _coded(self, levels: list, reduced: bool) -> Coded:
        contrast = Treatment() if self.contrast is None else self.contrast
        if callable(contrast):
            contrast = contrast()
        if hasattr(contrast, "code_with_intercept"):
            name = "code_without_intercept" if reduced else "code_with_intercept"
            found = getattr(contrast, name)(levels)
            if hasattr(found, "column_suffixes"):
                return found.matrix, found.column_suffixes
            return found
        if hasattr(contrast, "column_suffixes"):
            return contrast.matrix, contrast.column_suffixes
        if hasattr(contrast, "get_coding_matrix"):  # formulaic's
            return _foreign(contrast, levels, reduced)
        matrix = np.asarray(contrast, float)
        matrix = matrix[:, None] if matrix.ndim == 1 else matrix
        if matrix.ndim != 2 or len(matrix) != len(levels):
            raise FormulaError(
                f"a matrix of contrasts has a row a level, {len(levels)}, not shape "
                f"{matrix.shape}"
            )
        return matrix, [f"[custom{j}]" for j in range(matrix.shape[1])]


def _foreign(contrast: Any, levels: list, reduced: bool) -> Coded:
    matrix = np.asarray(contrast.get_coding_matrix(levels, reduced), float)
    style = contrast.get_factor_format(levels, reduced)
    names = contrast.get_coding_column_names(levels, reduced)
    return matrix, [style.format(name="", field=name) for name in names]


@dataclass(frozen=True)
class PatsyCall:
    """What ``C(x, contrast, levels)`` gives."""

    values: Any
    contrast: Any
    levels: Any


def mark(data, contrast=None, levels=None, *, contrasts=None, contr=None) -> PatsyCall:
    """``C(x)``: read x as a factor."""
    wish = next((w for w in (contrast, contrasts, contr) if w is not None), None)
    if isinstance(data, PatsyCall):
        wish = data.contrast if wish is None else wish
        levels = data.levels if levels is None else levels
        data = data.values
    return PatsyCall(data, wish, levels)


def is_factor(values: Any) -> bool:
    """Whether patsy would make a factor of it: all that is not made of numbers."""
    if isinstance(values, PatsyCall | pd.Categorical):
        return True
    dtype = getattr(values, "dtype", None)
    if dtype is None:
        dtype = np.asarray(values).dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return True
    if pd.api.types.is_bool_dtype(dtype):
        return True
    return not pd.api.types.is_numeric_dtype(dtype)


def read_levels(name: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n,), -1 where missing, and levels in patsy's order.

    A categorical keeps its own, those that do not occur included; booleans have both.
    """
    if isinstance(values, PatsyCall):
        return _named_levels(name, values)
    series = values if isinstance(values, pd.Series) else pd.Series(_flat(name, values))
    if isinstance(series.dtype, pd.CategoricalDtype):
        return series.cat.codes.to_numpy(), np.asarray(series.cat.categories)
    if pd.api.types.is_bool_dtype(series.dtype):
        codes = series.astype(object).map({False: 0, True: 1}).fillna(-1)
        return codes.to_numpy(int), np.array([False, True])
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "m":
        raise FormulaError(
            f"{name!r} holds durations; make numbers of them, such as {name}.dt.days, "
            f"or a factor with C({name})"
        )
    if series.dtype == object or isinstance(series.dtype, pd.StringDtype):
        codes, levels = factorize(series.to_numpy(dtype=object, na_value=None))
    else:
        try:
            codes, levels = factorize(series.array)
        except TypeError:
            codes, levels = factorize(series.to_numpy(dtype=object))
        if pd.api.types.is_datetime64_any_dtype(series.dtype):
            levels = np.array([pd.Timestamp(t) for t in levels], object)
    if len(levels) and set(map(type, levels.tolist())) == {bool}:
        codes = np.where(codes < 0, -1, levels.astype(int)[codes])
        levels = np.array([False, True])
    return codes, levels


def _flat(name: str, values: Any) -> Any:
    array = values if isinstance(values, pd.Categorical) else np.asarray(values)
    if getattr(array, "ndim", 1) == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if getattr(array, "ndim", 1) != 1:
        raise DataError(f"{name!r} has {array.ndim} dimensions; a factor has 1")
    return array


def _named_levels(name: str, marked: PatsyCall) -> tuple[np.ndarray, np.ndarray]:
    values = marked.values
    if hasattr(values, "dtype") and getattr(values.dtype, "kind", "") == "m":
        values = pd.Series(values).astype(str)
    codes, levels = read_levels(name, values)
    if marked.levels is None:
        return codes, levels
    wanted = np.asarray(list(marked.levels))
    place = match(wanted, levels)
    used = np.unique(codes[codes >= 0])
    if (place[used] < 0).any():
        lost = levels[used][place[used] < 0]
        raise DataError(
            f"{name!r}: the data have levels {listed(list(lost))} that levels= does "
            "not name"
        )
    return np.append(place, -1)[codes], wanted


def known_codes(name: str, values: Any, factor: CodedLevels) -> np.ndarray:
    """Codes in new data.

    Raises:
        DataError: a level that the model has not seen, with those it has.
    """
    codes, levels = read_levels(name, values)
    place = match(factor.levels, levels)
    used = np.unique(codes[codes >= 0])
    if (place[used] < 0).any():
        lost = [shown(v) for v in levels[used][place[used] < 0].tolist()]
        raise DataError(
            f"new data: {name!r} has levels {listed(lost)} that were not in the data "
            f"of the model; known are {listed([shown(v) for v in factor.levels])}"
        )
    return np.append(place, -1)[codes]
