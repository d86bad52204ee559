"""How the levels of a factor become columns.

A ``Coding`` holds both: the reduced columns (contrasts, beside an intercept or another
term that spans them) and the full ones (one indicator a level). It keeps matrices, not
recipes, so new data, JSON and sum coding need nothing else.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import FormulaError
from jaxglmm.formula.levels import text_of
from jaxglmm.formula.notices import listed, plain

NAMED = ("treatment", "sum", "helmert", "poly", "diff", "sas")


@dataclass(frozen=True)
class Marked:
    """What ``C(x, contrasts, levels=...)`` gives: the values and the wishes."""

    values: Any
    contrasts: Any = None
    levels: tuple | None = None


def mark(data, contrasts=None, *, contr=None, levels=None, **unknown) -> Marked:
    """``C(x)``, ``factor(x)``: read ``x`` as a factor, with contrasts if given."""
    if unknown:
        raise FormulaError(
            f"C() does not know {listed(list(unknown))}; it takes contrasts and levels"
        )
    if isinstance(data, Marked):
        data, contrasts = data.values, contrasts or data.contrasts
    wish = contrasts if contr is None else contr
    return Marked(data, wish, None if levels is None else tuple(levels))


@dataclass(frozen=True)
class Coding:
    """Columns of one factor.

    levels: (J,). reduced: (J, r) matrix; reduced_names: what follows the factor's name,
    such as ``"[T.b]"``. Full columns are the indicators ``"[b]"``.
    """

    levels: np.ndarray
    reduced: np.ndarray
    reduced_names: tuple[str, ...]

    @property
    def full_names(self) -> tuple[str, ...]:
        return tuple(f"[{shown(level)}]" for level in self.levels)

    def names(self, reduced: bool) -> tuple[str, ...]:
        return self.reduced_names if reduced else self.full_names

    def matrix(self, reduced: bool) -> np.ndarray:
        return self.reduced if reduced else np.eye(len(self.levels))


def shown(level: Any) -> str:
    """A level in the name of a coefficient; times as short as they are exact."""
    timed = isinstance(level, np.datetime64 | np.timedelta64 | dt.date | dt.timedelta)
    return text_of(level) if timed else f"{level}"


def treatment(levels: np.ndarray) -> Coding:
    """Differences from the first level."""
    J = len(levels)
    names = tuple(f"[T.{shown(level)}]" for level in levels[1:])
    return Coding(levels, np.eye(J)[:, 1:], names)


def sum_to_zero(coding: Coding) -> Coding:
    """The same factor with deviations from the mean of the levels."""
    J = len(coding.levels)
    matrix = np.vstack([np.eye(J - 1), -np.ones((1, J - 1))])
    names = tuple(f"[S.{shown(level)}]" for level in coding.levels[:-1])
    return Coding(coding.levels, matrix, names)


def _named(expr: str, name: str) -> Any:
    """Contrasts by R's names, ``"sum"`` or ``"contr.sum"``."""
    from formulaic.transforms.contrasts import ContrastsRegistry

    key = name.lower().removeprefix("contr.")
    if key not in NAMED:
        raise FormulaError(
            f"contrasts {name!r} of {expr!r} are not known; there are {listed(NAMED)}. "
            "Another reference is C(f, Treatment('b'))"
        )
    return getattr(ContrastsRegistry, "SAS" if key == "sas" else key)


def make_coding(expr: str, levels: np.ndarray, wish: Any) -> Coding:
    """The coding that ``C(x, wish)`` asks for; treatment contrasts without a wish.

    Args:
        expr: text of the factor, for messages.
        levels: (J,) in order.
        wish: a class or instance of formulaic's contrasts (``Sum``, ``contr.helmert``,
            ``Treatment("b")``), its name, a matrix (J, r), or a dict name -> (J,)
            weights.
    """
    if wish is None:
        return treatment(levels)
    from formulaic.transforms.contrasts import Contrasts, CustomContrasts

    if isinstance(wish, str):
        wish = _named(expr, wish)
    times = levels.dtype.kind in "mM"
    labels = [text_of(v) for v in levels] if times else [plain(v) for v in levels]
    try:
        if isinstance(wish, type) and issubclass(wish, Contrasts):
            wish = wish()
        if not isinstance(wish, Contrasts):
            wish = CustomContrasts(wish)  # type: ignore[arg-type]
        matrix = np.asarray(wish.get_coding_matrix(labels, True), np.float64)
        names = wish.get_coding_column_names(labels, True)
        style = wish.get_factor_format(labels, True)
    except Exception as error:
        raise FormulaError(
            f"the contrasts of {expr!r} do not fit its levels {listed(labels)}: {error}"
        ) from error
    suffixes = tuple(style.format(name="", field=name) for name in names)
    return Coding(levels, matrix.reshape(len(levels), -1), suffixes)
