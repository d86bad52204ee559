"""Several fits side by side: models of the same data, imputations of one data set."""

from __future__ import annotations

from typing import Any

from jaxglmm.postestimation.choice import criteria, pooling


def compare_models(*fits: Any, criterion: str = "aic"):
    """Several models of the same data by their criteria, the best first.

    Models need not be nested. REML fits are fitted again by maximum likelihood where
    their fixed effects differ.

    Args:
        *fits: two or more fits, or one dict of them by name.
        criterion: what weights and order go by: "aic", "aicc" or "bic".

    Returns:
        A frame: formula, npar, log_likelihood, aic, aicc, bic, delta (above the best),
        weight (exp(-delta / 2), as shares; Burnham and Anderson 2002).

    Raises:
        ComparisonError: different data, posteriors, or different approximations of the
            likelihood.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> one = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    >>> two = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    >>> jg.compare_models(one, two)["delta"].round(2).to_dict()
    {'model2': 0.0, 'model1': 38.84}
    """
    return criteria.compare_models(fits, criterion)


def pool(fits: Any, df: Any = None):
    """Fits of imputed data sets put together by Rubin's rules.

    Args:
        fits: two or more fits of one model, one for each imputed data set: a list, or
            the ``Fits`` of ``fit_many``.
        df: degrees of freedom that complete data would have; default those of the fits
            (Satterthwaite's of each coefficient; infinite for z-tests), their mean.

    Returns:
        ``Pooled``: ``.table`` with estimate, std_error, df (Barnard and Rubin 1999),
        statistic, p_value, limits, riv, lambda, fmi; ``.test(names)``; ``.variances``.

    Raises:
        ComparisonError: fewer than two fits, or different coefficients.

    >>> import jaxglmm as jg, numpy as np
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> rng = np.random.default_rng(1)
    >>> fits = []
    >>> for _ in range(5):
    ...     filled = sleep.assign(Days=sleep["Days"] + rng.normal(0, 0.1, len(sleep)))
    ...     fits.append(jg.lmm("Reaction ~ Days + (1 | Subject)", filled))
    >>> jg.pool(fits).table["estimate"].round(1).to_dict()
    {'(Intercept)': 251.4, 'Days': 10.5}
    """
    return pooling.pool(fits, df)
