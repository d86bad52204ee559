"""Predictions for the rows of the data or for new ones, with their uncertainty.

Three questions, by ``re``: *conditional*, what will this level do (X beta + Z b)?
*population*, what does a level with b = 0 do (X beta)? *marginal*, what happens to a
level drawn at random? The last two have the same mean in a linear model, but a new
observation varies by sigma^2 in the one and by z' Sigma z + sigma^2 in the other.

A level that was not in the data has b = 0 with its full prior variance, so its standard
error and intervals are honest. Intervals use normal quantiles and the estimated
variance parameters as if known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import (
    DataError,
    NewLevelsWarning,
    NotApplicableError,
    NotEstimableWarning,
)
from jaxglmm._pandas import pd
from jaxglmm.fitting import predictor
from jaxglmm.fitting.components import covariances
from jaxglmm.fitting.kinds import is_correlated
from jaxglmm.fitting.model_frame import readable
from jaxglmm.formula.array_recipe import INTERCEPT, ArrayRecipe
from jaxglmm.formula.components import ComponentsRecipe
from jaxglmm.formula.design import Design, NewRows
from jaxglmm.formula.notices import warn
from jaxglmm.formula.recipe import FormulaRecipe
from jaxglmm.formula.tables import Table, as_table
from jaxglmm.model.covariances import of as covariance_of

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

MOST_NAMED = 5  # unseen levels that a warning lists
CHOICES = {
    "re": ("conditional", "population", "marginal"),
    "type": ("response", "link"),
    "interval": (None, "confidence", "prediction"),
    "new_levels": ("zero", "error"),
}


def check(**given) -> None:
    """Refuse a word that is not among the choices, and ``se`` that is no flag."""
    for name, value in given.items():
        if name == "se":
            _arguments.flag(name, value)
        elif name == "re" and is_partial(value):
            pass  # read with the model, in ``partial``
        elif name == "new_levels" and _arguments.is_among(value, ("sample",)):
            raise NotApplicableError(
                "new_levels='sample' draws effects of new levels, and a prediction is "
                "one number: fit.draws(n).predict(newdata) has n of them, "
                ".intervals(newdata) what they say; re='marginal' is their mean"
            )
        else:
            _arguments.choice(name, value, CHOICES[name])


def is_partial(re: Any) -> bool:
    """Whether ``re`` names random terms, "(1 | g)"."""
    return isinstance(re, str) and "|" in re


def rows(
    fit: FittedModel,
    newdata,
    new_levels: str = "zero",
    offset=None,
    random: bool = True,
) -> NewRows:
    """The design of new data, or of the data of the fit.

    Args:
        fit: the fit.
        newdata: table, or None for the data of the fit.
        new_levels: "zero" or "error".
        offset: of the new rows, where that of the fit was an array.
        random: False for the fixed part only, which needs no grouping factors.
    """
    design = fit.design
    if newdata is None:
        offset = np.zeros(design.n) if design.offset is None else design.offset
        return NewRows(design.X, offset, design.terms, design.index)
    if design.recipe is None:
        raise NotApplicableError(
            "This fit's design has no recipe, so it does not know how to make columns "
            "from new data. Fit with jg.lmm, or use fit.coefficients and fit.ranef "
            "with your own arrays"
        )
    given = {} if offset is None else {"offset": offset}
    new = design.recipe.new_rows(
        readable(newdata), new_levels=new_levels, random=random, **given
    )
    return new_places(fit, new)


def new_places(fit: FittedModel, new: NewRows) -> NewRows:
    """The rows, those at places that the data lack as what the others say of them.

    The expectation of an effect at a new time of a level is R_new R^-1 b, of b at the
    known ones, with R by the structure of the term.
    """
    terms = []
    for term, own in zip(new.terms, fit.design.terms, strict=False):
        lost = np.zeros(0, int)
        if term.at is not None and hasattr(fit, "estimates"):
            lost = np.flatnonzero(~term.values.any(axis=1))
        if len(lost):
            assert term.at is not None
            kind = covariance_of(own)
            lam = fit.estimates.lam[len(terms)]
            values = term.values.copy()
            values[lost] = W = kind.elsewhere(lam, term.at[lost], own.first)
            share = np.sum((W @ lam) ** 2, axis=1) / np.sum(lam[0] ** 2)
            beyond = np.zeros(len(values))
            beyond[lost] = np.maximum(1.0 - share, 0.0)
            term = replace(term, values=values, beyond=beyond)
        terms.append(term)
    return replace(new, terms=(*terms, *new.terms[len(terms) :]))


def answerable(fit: FittedModel, new: NewRows) -> NewRows:
    """The rows, with NaN in X for those whose mean the data cannot tell."""
    return answerable_of(fit.design, new)


def answerable_of(design: Design, new: NewRows) -> NewRows:
    """``answerable`` from the design alone."""
    missing = design.null_space
    if missing is None or new.full is None:
        return new
    blind = missing.inestimable(new.full)
    if not blind.any():
        return new
    warn_not_estimable(design, int(blind.sum()), len(blind), "rows")
    X = np.where(blind[:, None], np.nan, new.X)
    return NewRows(X, new.offset, new.terms, new.index)


def warn_not_estimable(design: Design, count: int, total: int, what: str) -> None:
    """One warning for all numbers that the data cannot tell."""
    dropped = design.dropped_columns
    names = ", ".join(dropped[:MOST_NAMED]) + ", ..." * (len(dropped) > MOST_NAMED)
    one = count == 1
    warn(
        f"{count} of {total} {what} {'is' if one else 'are'} not estimable, so NaN: "
        f"{'it depends' if one else 'they depend'} on columns that the data cannot "
        f"tell from others ({names} dropped), as where a combination of levels has no "
        "data. Ask about what occurs in the data, or fit a model without these columns",
        NotEstimableWarning,
    )


def check_offset(newdata, offset) -> None:
    """Refuse an offset for the rows of the fit, which have theirs."""
    if newdata is None and offset is not None:
        raise NotApplicableError(
            "offset= belongs to new data; the rows of the fit have their own offset"
        )


def rows_at_random(fit: FittedModel, newdata, offset=None) -> NewRows:
    """The design of rows whose levels are drawn at random.

    The columns of the random terms are needed, their grouping factors are not.
    """
    if newdata is None:
        return rows(fit, None)
    newdata = readable(newdata)
    recipe = fit.design.recipe
    if isinstance(recipe, FormulaRecipe | ComponentsRecipe):
        newdata = with_unknown_groups(recipe, newdata)
    elif isinstance(recipe, ArrayRecipe):
        _check_slopes(recipe, newdata)
    return rows(fit, newdata, "zero", offset)


def with_unknown_groups(recipe: FormulaRecipe | ComponentsRecipe, newdata) -> Table:
    """New data with an empty column for each grouping factor it lacks."""
    table = as_table(newdata)
    parts = {part for coding in recipe.groups.values() for part in coding.parts}
    absent = parts - set(table.names)
    empty = np.full(table.n, None, object)
    return Table(
        (*table.names, *sorted(absent)),
        table.n,
        lambda name: empty if name in absent else table.fetch(name),
        table.index,
    )


def _check_slopes(recipe: ArrayRecipe, newdata) -> None:
    """Refuse new arrays without the values of a random slope."""
    if isinstance(newdata, Mapping) and "X" in newdata and "X" not in recipe.x_names:
        given = newdata.get("random_data") or {}
        names = given if isinstance(given, Mapping) else as_table(given).names
    else:
        names = as_table(newdata).names
    known = {INTERCEPT, *recipe.x_names, *names}
    for slope in (name for _, columns, _ in recipe.parts for name in columns):
        if slope not in known:
            raise DataError(
                f"new data lack the slope {slope!r}, on which the variance of the "
                "random effects depends; put it into random_data"
            )


def warn_of_new_levels(new: NewRows, newdata) -> None:
    """One warning for all levels that were not in the data of the fit."""
    unseen = {t.factor: t.codes < 0 for t in new.terms if (t.codes < 0).any()}
    if not unseen:
        return
    what = "; ".join(
        f"{factor}{_labels(newdata, factor, rows)} in {int(rows.sum())} rows"
        for factor, rows in unseen.items()
    )
    text = (
        f"Levels that were not in the data: {what}. Their random effects are predicted "
        "as zero, with their whole prior variance in standard errors and intervals; "
        "new_levels='error' refuses them."
    )
    warn(text, NewLevelsWarning)


def _labels(newdata, factor: str, rows: np.ndarray) -> str:
    """The first few unseen labels of a factor, where new data has its columns."""
    try:
        table = as_table(newdata)
        parts = [table.column(name).labels()[rows] for name in factor.split(":")]
    except DataError:
        return ""
    found = dict.fromkeys(":".join(map(str, row)) for row in zip(*parts, strict=True))
    few = ", ".join(list(found)[:MOST_NAMED])
    return f" {few}{', ...' if len(found) > MOST_NAMED else ''}"


def mean(fit: FittedModel, new: NewRows, re: str) -> np.ndarray:
    """Predicted means, (n_new,)."""
    eta = predictor.fixed_part(new.X, fit.estimates.beta, new.offset)
    if re == "conditional":
        eta = eta + predictor.random_part(new.terms, fit.estimates.b)
    return eta


def fixed_variance(X: np.ndarray, vcov: np.ndarray) -> np.ndarray:
    """x' V x of every row, (n,)."""
    return np.einsum("ij,jk,ik->i", X, vcov, X)


def variance(fit: FittedModel, new: NewRows, re: str) -> np.ndarray:
    """Variance of the predicted mean, (n_new,)."""
    if re != "conditional" or not new.terms or not len(new.X):
        return fixed_variance(new.X, fit.coefficient_covariance())
    if is_correlated(fit):
        return fit.prediction_variance(new)
    from jaxglmm.fitting.conditional_variance import prediction_variance

    return np.asarray(prediction_variance(fit, new, re))


def observation_variance(fit: FittedModel, new: NewRows, re: str, newdata: Any):
    """What a new observation adds to the variance of its mean, (n_new,) or a number."""
    if is_correlated(fit):
        noise: Any = fit.noise(newdata)
    else:
        weights = fit.design.weights if newdata is None else None
        noise = predictor.residual_sd(fit.sigma, weights) ** 2
    if re == "marginal":
        noise = noise + predictor.random_variance(new.terms, covariances(fit.estimates))
    return noise


def predict(fit: FittedModel, newdata, re, se, interval, level, new_levels, offset):
    """Means, or a frame with ``fit`` and what was asked of ``se, lower, upper``."""
    _arguments.level(level)
    spread = re == "marginal" and interval == "prediction"
    random = re == "conditional" or spread
    new = answerable(fit, rows(fit, newdata, new_levels, offset, random))
    return answered(fit, new, newdata, re, se, interval, level)


def answered(fit: FittedModel, new: NewRows, newdata, re, se, interval, level):
    """``predict`` of rows that are designed."""
    if re == "conditional":
        warn_of_new_levels(new, newdata)
    centre = mean(fit, new, re)
    if not se and interval is None:
        return centre
    var = variance(fit, new, re)
    out = {"fit": centre}
    if se:
        out["se"] = np.sqrt(var)
    if interval is not None:
        if interval == "prediction":
            var = var + observation_variance(fit, new, re, newdata)
        from scipy import special

        half = special.ndtri((1 + level) / 2) * np.sqrt(var)
        out["lower"], out["upper"] = centre - half, centre + half
    return pd.DataFrame(out, index=new.index)
