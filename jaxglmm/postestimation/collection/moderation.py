"""Empirical Bayes for residual variances across many models.

Smyth (2004), Statistical Applications in Genetics and Molecular Biology 3, 3: given the
true variance, s2 with d degrees of freedom is scaled chi-squared, and true variances
are scaled inverse chi-squared with d0 degrees of freedom about s0^2. Then log s2 has

    E log s2   = log s0^2 + digamma(d / 2) - log(d / 2) - digamma(d0 / 2) + log(d0 / 2)
    Var log s2 = trigamma(d / 2) + trigamma(d0 / 2),

whose sample moments give d0 and s0^2. In a mixed model s2 is the residual variance, and
d = 2 / Var(log s2) by its information matrix; the covariance of the coefficients is s2
times a matrix of the relative variances, which are left as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coefficients import t_p_values

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels


def moderate(fits: FittedModels) -> FittedModels:
    """Moderated sigma, se, df and p-values; see ``Fits.moderate``."""
    if fits.se is None or fits.df_sigma is None or np.isnan(fits.df_sigma).all():
        raise NotApplicableError(
            "moderation is for linear mixed models with standard errors: a generalised "
            "model has no residual variance to share"
        )
    if "moderation" in fits.facts:
        raise NotApplicableError("these fits are moderated already")
    s2, d = fits.sigma**2, fits.df_sigma
    known = np.isfinite(s2) & np.isfinite(d) & (s2 > 0) & (d > 0)
    if known.sum() < 3:
        raise NotApplicableError(
            f"moderation needs at least 3 fits with a residual variance, here are "
            f"{int(known.sum())}"
        )
    d0, s02 = prior(s2[known], d[known])
    posterior = np.full(len(s2), np.nan)
    if np.isinf(d0):
        posterior[known] = s02
    else:
        posterior[known] = (d0 * s02 + d[known] * s2[known]) / (d0 + d[known])
    with np.errstate(invalid="ignore", divide="ignore"):
        se = fits.se * np.sqrt(posterior / s2)[:, None]
        assert fits.df is not None
        df = fits.df + d0
        p_values = t_p_values(fits.coefficients / se, df)
    facts = {"df_prior": float(d0), "variance_prior": float(s02)}
    return replace(
        fits,
        sigma=np.sqrt(posterior),
        se=se,
        df=df,
        p_values=p_values,
        df_sigma=d + d0,
        facts={**fits.facts, "moderation": facts},
    )


def prior(s2: np.ndarray, d: np.ndarray) -> tuple[float, float]:
    """d0 (perhaps infinite) and s0^2 from variances and their degrees of freedom."""
    from scipy.special import digamma, polygamma

    e = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    mean = float(e.mean())
    spread = float(e.var(ddof=1) - np.mean(polygamma(1, d / 2)))
    if spread <= 0:
        return np.inf, float(np.exp(mean))
    d0 = 2 * inverse_trigamma(spread)
    return d0, float(np.exp(mean + digamma(d0 / 2) - np.log(d0 / 2)))


def inverse_trigamma(x: float) -> float:
    """y with trigamma(y) = x > 0: Newton's method on 1 / trigamma, which is convex."""
    from scipy.special import polygamma

    y = 0.5 + 1 / x
    for _ in range(100):
        value = float(polygamma(1, y))
        step = value * (1 - value / x) / float(polygamma(2, y))
        y += step
        if -step < 1e-10 * y:
            break
    return y
