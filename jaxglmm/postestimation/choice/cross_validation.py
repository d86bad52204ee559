"""Cross-validation: folds left out, the model fitted to the rest, the fold predicted.

Folds are of whole levels of a factor (what the model says of levels it has not seen) or
of rows (of levels it knows). What is left out is judged by its log density under the
model of the rest, in which random effects and fixed effects are as uncertain as the
rest leaves them, and by how far its mean is off.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import JaxGLMMError, JaxGLMMWarning, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting import predictor
from jaxglmm.fitting.again import fitted_to
from jaxglmm.fitting.conditional_variance import prediction_variance
from jaxglmm.formula.design import Design, NewRows
from jaxglmm.formula.split_rows import as_new
from jaxglmm.many.subset import subset
from jaxglmm.numerics.normal_rule import normal_rule
from jaxglmm.postestimation.groups import labels_of
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.precision import double_precision

NODES = 40
FOLDS = 10


@dataclass(frozen=True)
class CrossValidation:
    """What models of the rest say of rows that were left out; shows itself.

    rows: frame, one row a row of the data: fold, level (number of what it was left out
    with), response, mean, log_density (NaN where its fold could not be fitted or its
    mean cannot be told without it)
    folds: frame, one row a fold: rows, levels, elpd, rmse, mae, converged
    elpd: sum of the log densities; elpd_se: its standard error; rmse, mae: of the means
    by: the factor whose levels stay together, None where rows were dealt one by one
    """

    rows: pd.DataFrame
    folds: pd.DataFrame
    by: str | None

    @property
    def elpd(self) -> float:
        """Sum of the log predictive densities, of rows that have one."""
        return float(self.rows["log_density"].sum(min_count=1))

    @property
    def elpd_se(self) -> float:
        """Standard error of ``elpd``: rows, or levels, that are independent."""
        by_level = self.rows.groupby("level")["log_density"].sum(min_count=1)
        each = by_level.dropna().to_numpy()
        if len(each) < 2:
            return np.nan
        return float(np.sqrt(len(each) * np.var(each, ddof=1)))

    @property
    def rmse(self) -> float:
        """Root of the mean square of response less mean."""
        return float(np.sqrt((self._error() ** 2).mean()))

    @property
    def mae(self) -> float:
        """Mean of the absolute errors."""
        return float(self._error().abs().mean())

    def _error(self) -> pd.Series:
        return self.rows["response"] - self.rows["mean"]

    def __repr__(self) -> str:
        what = "rows" if self.by is None else f"levels of {self.by}"
        lost = int(self.rows["log_density"].isna().sum())
        note = f"; {lost} rows could not be predicted" if lost else ""
        return (
            f"<Cross-validation, {len(self.folds)} folds of {what}: elpd "
            f"{self.elpd:.2f} (se {self.elpd_se:.2f}), RMSE {self.rmse:.4g}, MAE "
            f"{self.mae:.4g}{note}>"
        )


@double_precision
def cross_validate(fit: Any, by: Any = None, k: Any = None, seed: Any = 0):
    """See ``Fit.cross_validate``."""
    design = fit.design
    if design.residual is not None or design.parts or _of_categories(fit):
        raise NotApplicableError(
            "cross_validate() predicts rows of one linear predictor that are "
            "independent given the random effects; this model has correlated residuals "
            "or several predictors"
        )
    name, codes, count = labels_of(design, by)
    what = "rows" if by is None else f"levels of {name}"
    folds = _dealt(count, what, k, np.random.default_rng(_arguments.seed(seed)))
    fold = folds[codes]
    used = np.zeros(design.n, bool)
    used[design.counted] = True
    mean, density = np.full((2, design.n), np.nan)
    found = []
    for i in range(int(folds.max()) + 1):
        out = np.flatnonzero((fold == i) & used)
        rest = np.flatnonzero((fold != i) & used)
        converged = _fold(fit, out, rest, mean, density)
        found.append(
            (
                len(out),
                len(np.unique(codes[out])),
                *_scores(design, out, mean, density),
                converged,
            )
        )
    y = design.y if design.trials is None else design.y / design.trials
    rows = pd.DataFrame(
        {"fold": fold, "level": codes, "response": y, "mean": mean}
    ).assign(log_density=density)
    columns = ["rows", "levels", "elpd", "rmse", "mae", "converged"]
    return CrossValidation(rows[used], pd.DataFrame(found, columns=columns), name)


def _of_categories(fit: Any) -> bool:
    kinds = ("ordinal", "nominal")
    return not fit.is_linear and fit.family.family_kind in kinds


def _dealt(count: int, what: str, k: Any, rng: np.random.Generator) -> np.ndarray:
    """(levels,) the fold of each level."""
    if _arguments.is_among(k, ("all", "loo")):
        return np.arange(count)
    if k is not None:
        k = _arguments.whole("k", k, 2, None, error=NotApplicableError)
    if count < 2:
        raise NotApplicableError(
            "cross_validate() needs two levels (or rows) at least: one is left out, "
            "the other is fitted"
        )
    if k is not None and k > count:
        raise NotApplicableError(
            f"k={k} folds of {count} {what}: there can be {count} at most, which is "
            "k='all'"
        )
    return rng.permutation(np.arange(count) % (min(FOLDS, count) if k is None else k))


def _fold(
    fit: Any, out: np.ndarray, rest: np.ndarray, mean: np.ndarray, density: np.ndarray
) -> bool:
    """Fit the rest, predict the fold; False where it cannot be fitted."""
    design = fit.design
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JaxGLMMWarning)
            part = subset(design, rest)
            one = fitted_to(fit, part)
    except JaxGLMMError:
        return False
    new = as_new(design, out, rest, part)
    eta = predictor.fixed_part(new.X, one.estimates.beta, new.offset)
    eta = eta + predictor.random_part(new.terms, one.estimates.b)
    spread = _variance(one, new)
    judge = _linear if one.is_linear else _generalised
    mean[out], density[out] = judge(one, design, out, eta, spread)
    return bool(one.converged)


def _variance(fit: Any, new: NewRows) -> np.ndarray:
    """Of the linear predictor, around its prediction."""
    told = np.isfinite(new.X).all(axis=1)
    out = np.full(len(new.X), np.nan)
    if told.any():
        out[told] = prediction_variance(fit, new.take(told))
    return np.maximum(out, 0.0)


def _linear(fit: Any, design: Design, rows: np.ndarray, eta, spread):
    w = 1.0 if design.weights is None else design.weights[rows]
    total = spread + fit.sigma**2 / w
    e = design.y[rows] - eta
    return eta, -0.5 * (np.log(2 * np.pi * total) + e**2 / total)


def _generalised(fit: Any, design: Design, rows: np.ndarray, eta, spread):
    """Mean and log density over the normal distribution of the predictor."""
    z, weight = normal_rule(NODES)
    log_weight = np.log(weight)
    there = eta[:, None] + np.sqrt(spread)[:, None] * z
    at = np.nan_to_num(there)
    family = fit.family
    y = design.y[rows][:, None]
    trials = np.ones((len(rows), 1))
    if design.trials is not None:
        trials = design.trials[rows][:, None]
    shape = at.shape
    each = family.log_density(
        jnp.asarray(np.broadcast_to(y, shape)),
        jnp.asarray(at),
        jnp.asarray(np.atleast_1d(fit.estimates.phi)),
        jnp.asarray(np.broadcast_to(trials, shape)),
    )
    each = np.asarray(each)
    if design.weights is not None:
        each = each * design.weights[rows][:, None]
    total = each + log_weight
    top = total.max(axis=1)
    density = top + np.log(np.exp(total - top[:, None]).sum(axis=1))
    mean = np.asarray(family.mean(at)) @ (weight / weight.sum())
    lost = ~np.isfinite(eta)
    return np.where(lost, np.nan, mean), np.where(lost, np.nan, density)


def _scores(design: Design, out: np.ndarray, mean: np.ndarray, density: np.ndarray):
    """elpd, RMSE and MAE of a fold."""
    y = design.y[out] if design.trials is None else design.y[out] / design.trials[out]
    e = y - mean[out]
    if not np.isfinite(e).any():
        return np.nan, np.nan, np.nan
    return (
        float(np.nansum(density[out])),
        float(np.sqrt(np.nanmean(e**2))),
        float(np.nanmean(np.abs(e))),
    )
