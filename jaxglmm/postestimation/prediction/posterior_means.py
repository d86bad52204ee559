"""Means of rows under a posterior: their draws, of which everything else is made.

Averages, differences and slopes are taken of each draw, ratios as well, so that nothing
is approximated by a Gaussian: estimates are posterior means, standard errors posterior
standard deviations, limits quantiles. There is no test; ``p_direction`` is the
probability that an estimate has the sign of its median (Makowski, Ben-Shachar and
Luedecke 2019).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.formula.design import NewRows
from jaxglmm.posterior import predictive
from jaxglmm.postestimation.inference import hypotheses
from jaxglmm.postestimation.prediction import averages
from jaxglmm.postestimation.prediction import posterior as predict
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.prediction.means import MeanRows, Means

if TYPE_CHECKING:
    from jaxglmm.posterior.fitted_posterior import FittedPosterior


class PosteriorMeans(Means):
    """Means of a posterior; the draws (n, S) of each take the place of a Jacobian."""

    fit: FittedPosterior

    def __init__(self, fit: FittedPosterior, type: str, re: str):
        self.fit, self.type, self.re = fit, type, re
        self.is_link, self.link = type == "link", fit.family.link
        self.random = re == "marginal" and bool(fit.design.terms)
        plain = averages.has_plain_mean(fit.family)
        identity = plain and fit.family.link.name == "identity"
        self.of_response = identity
        self.is_affine = identity or (self.is_link and not self.random)
        self.at_once = max(1, predictive.AT_ONCE // fit.posterior.n_draws)

    def at(self, new: NewRows) -> MeanRows:
        rows = predictive.rows_of(new, self.fit.design)
        scale = "response" if self.random else self.type
        draws = predict.means(self.fit, rows, self.re, scale)(slice(0, len(new.X))).T
        if self.random and self.is_link:
            with np.errstate(all="ignore"):
                draws = np.asarray(self.fit.family.link.link(draws), float)
        offset = rows.offset[0] if rows.columns else rows.offset
        return MeanRows(draws.mean(axis=1), draws, offset)

    def df(self, jacobian: np.ndarray) -> np.ndarray:
        """NaN: draws have no degrees of freedom."""
        return np.full(len(jacobian), np.nan)

    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Refused: limits are quantiles of the draws, see ``table``."""
        raise NotApplicableError("limits of a posterior are quantiles of its draws")

    def logarithm(self, rows: MeanRows) -> MeanRows:
        """Logarithms of the draws of means, which must be positive."""
        known = ~self.inestimable(rows)
        if not (rows.jacobian[known] > 0).all():
            least = rows.jacobian[known].min()
            raise NotApplicableError(
                f"ratio=True: a mean is {least:.3g} in a draw, and ratios need "
                "positive means. Use differences (ratio=False)"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = np.log(rows.jacobian)
        return replace(rows, value=draws.mean(axis=1), jacobian=draws)

    def table(self, rows: MeanRows, level: float, ratio: bool = False) -> pd.DataFrame:
        """estimate, std_error, conf_low, conf_high, p_direction of the draws."""
        draws = np.where(self.inestimable(rows)[:, None], np.nan, rows.jacobian)
        return table(draws, level, ratio)


def table(draws: np.ndarray, level: float, ratio: bool = False) -> pd.DataFrame:
    """Mean, sd, central limits and probability of the direction, one row a quantity.

    Args:
        draws: (k, S).
        level: probability between the limits.
        ratio: exp of the draws; the direction is that of the logarithm.
    """
    _arguments.level(level)
    tails = [(1 - level) / 2, (1 + level) / 2]
    with np.errstate(invalid="ignore", over="ignore"):
        above, below = (draws > 0).mean(axis=1), (draws < 0).mean(axis=1)
        direction = np.where(
            np.isnan(draws).any(axis=1), np.nan, np.maximum(above, below)
        )
        shown = np.exp(draws) if ratio else draws
        low, high = np.quantile(shown, tails, axis=1)
        return pd.DataFrame(
            {
                "estimate": shown.mean(axis=1),
                "std_error": shown.std(axis=1, ddof=1),
                "conf_low": low,
                "conf_high": high,
                "p_direction": direction,
            }
        )


def test(fit: FittedPosterior, L, rhs) -> pd.DataFrame:
    """L beta - rhs from the draws, one row a row of L; NaN where it cannot be told."""
    matrix = hypotheses.contrast_matrix(L, fit.design.x_names)
    rhs = hypotheses.right_side(rhs, len(matrix))
    draws = matrix @ fit.posterior.draws.beta.T - rhs[:, None]
    blind = hypotheses.inestimable(fit, matrix)
    if blind.any():
        count = int(blind.sum())
        _predict.warn_not_estimable(fit.design, count, len(blind), "rows of L")
    out = table(np.where(blind[:, None], np.nan, draws), 0.95)
    return out.set_axis([hypotheses.in_words(r, fit.design.x_names) for r in matrix])
