"""Predictions with some of the random effects, as ``re.form = ~(1 | g)`` has them in R.

Random effects that are left out are zero for certain: their columns of Z are zeros, so
that neither the mean nor its variance has them.
"""

from __future__ import annotations

import re as regular
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.fitting.model_frame import readable
from jaxglmm.formula.design import RandomTerm
from jaxglmm.formula.parse import RandomPart, parse
from jaxglmm.formula.recipe import FormulaRecipe
from jaxglmm.formula.tables import as_table
from jaxglmm.postestimation.prediction import predict as _predict

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

LEVEL = regular.compile(r"\[[^\[\]]*\]")  # of a factor, in the name of a column


def rows(fit: FittedModel, newdata: Any, re: str, new_levels: str, offset: Any):
    """The design of rows, columns of Z zero for effects that are not asked for.

    Args:
        fit: of one linear predictor.
        newdata: table, or None for the data of the fit; factors whose effects are left
            out need not be there.
        re: random terms as in a formula, "(1 | g)", "(1 | a) + (x | b)".
        new_levels: "zero" or "error", of factors that count.
        offset: of new rows, where the fit's was an array.

    Raises:
        NotApplicableError: terms or columns that the model has not.
        DataError: a new level where ``new_levels="error"``.
    """
    kept = columns_kept(fit, re)
    if newdata is not None and isinstance(fit.design.recipe, FormulaRecipe):
        table, factors = as_table(readable(newdata)), kept_factors(fit, kept)
        lost = [name for name in factors if name not in table.names]
        if lost:
            raise DataError(f"new data lack the grouping factor {lost[0]!r}")
        newdata = _predict.with_unknown_groups(fit.design.recipe, table)
    new = _predict.rows(fit, newdata, "zero", offset)
    terms = tuple(
        _without(term, some) for term, some in zip(new.terms, kept, strict=True)
    )
    unseen = {t.factor for t in terms if (t.codes < 0).any()}
    if new_levels == "error" and unseen:
        raise DataError(
            f"new data have levels of {', '.join(sorted(unseen))} that were not in the "
            "data of the fit; new_levels='zero' predicts them with no effect"
        )
    return replace(new, terms=terms)


def predict(fit: FittedModel, newdata, re, se, interval, level, new_levels, offset):
    """``predict.predict`` of a linear model with some of the random effects."""
    _arguments.level(level)
    new = _predict.answerable(fit, rows(fit, newdata, re, new_levels, offset))
    return _predict.answered(fit, new, newdata, "conditional", se, interval, level)


def columns_kept(fit: FittedModel, re: str) -> list[np.ndarray]:
    """(q,) of each term of the fit, whether its columns are asked for."""
    if fit.design.parts:
        raise NotApplicableError(
            f"re={re!r}: some of the random effects are for models of one linear "
            "predictor; this one has re='conditional' and 'population'"
        )
    left, right = ("", re) if "~" not in re else re.split("~", 1)
    if left.strip():
        raise NotApplicableError(f"re={re!r} names a response: write '(1 | g)'")
    parsed = parse(f"y ~ {right}")
    if parsed.fixed.replace(" ", "") not in ("", "1"):
        raise NotApplicableError(
            f"re={re!r} has fixed effects ({parsed.fixed.strip()}), which predictions "
            "always have: name random terms alone, '(1 | g)'"
        )
    terms = fit.design.terms
    kept = [np.zeros(len(t.names), bool) for t in terms]
    for part in parsed.random:
        found = False
        for term, some in zip(terms, kept, strict=True):
            if term.factor == part.grouping.name:
                own = _asked(part, term)
                some |= own
                found |= bool(own.any())
        if not found:
            have = ", ".join(_shown(t.names, t.factor) for t in terms)
            asked = _shown([t.name for t in part.terms], part.grouping.name)
            raise NotApplicableError(
                f"re={re!r}: this model has no {asked}; it has {have or 'none'}"
            )
    return kept


def _shown(names: Iterable[str], factor: str) -> str:
    columns = ("1" if name == "(Intercept)" else name for name in names)
    return f"({' + '.join(columns)} | {factor})"


def _asked(part: RandomPart, term: RandomTerm) -> np.ndarray:
    """(q,) whether a term's columns are among those of a part."""
    wanted = {frozenset(atom.expr for atom in one.atoms) for one in part.terms}
    return np.array([_term_of(name) in wanted for name in term.names])


def _term_of(column: str) -> frozenset[str]:
    """The variables of a column: of ``a[T.2]:x`` a and x, of an intercept none."""
    if column == "(Intercept)":
        return frozenset()
    return frozenset(LEVEL.sub("", piece) for piece in column.split(":"))


def kept_factors(fit: FittedModel, kept: list[np.ndarray]) -> list[str]:
    """Variables of the grouping factors whose effects stay."""
    pairs = zip(fit.design.terms, kept, strict=True)
    used = [term.factor for term, some in pairs if some.any()]
    return list(dict.fromkeys(name for f in used for name in f.split(":")))


def _without(term: RandomTerm, kept: np.ndarray) -> RandomTerm:
    if kept.all():
        return term
    values = np.where(kept, term.values, 0.0)
    if kept.any():
        return replace(term, values=values)
    return replace(term, values=values, codes=np.maximum(term.codes, 0), beyond=None)
