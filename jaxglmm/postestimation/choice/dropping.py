"""Terms left out one by one: ``drop1`` of the fixed effects, ``ranova`` of the random.

Margins are respected: what another term contains stays. F-tests are those of the
hypothesis that the mean lies in the columns that are left, as in lmerTest's ``drop1``;
likelihood-ratio tests fit again without the term, by maximum likelihood for fixed
effects and by the fit's own criterion for random ones, as in lme4 and lmerTest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.again import fitted_to
from jaxglmm.fitting.refit import with_method
from jaxglmm.formula.design import Design
from jaxglmm.formula.reduced import (
    droppable,
    reductions,
    refuse_smooths,
    without_fixed,
    without_random,
)
from jaxglmm.postestimation.inference.comparison import boundary_p_value
from jaxglmm.postestimation.inference.denominator_df import contrast_test

NONE = "<none>"
TESTS = ("F", "chisq", "none")
F_COLUMNS = ["sum_sq", "mean_sq", "num_df", "den_df", "statistic", "p_value"]


def drop1(fit: Any, test: str | None = None, ddf: str | None = None) -> pd.DataFrame:
    """Each fixed term that may go, tested; see ``Fit.drop1``."""
    refuse_smooths(fit.design, "drop1()")
    if test is None:
        test = "F" if fit.is_linear else "chisq"
    spelt = {"f": "F", "lrt": "chisq", "chisq": "chisq", "none": "none"}
    known = isinstance(test, str) and test.lower() in spelt
    kind = spelt[test.lower()] if known else _arguments.choice("test", test, TESTS)
    if kind == "F":
        return _by_F(fit, fit.checked_ddf(ddf))
    return _by_refits(fit, kind == "chisq")


def _by_F(fit: Any, ddf: str) -> pd.DataFrame:
    if ddf == "asymptotic":
        raise NotApplicableError(
            "drop1(test='F') needs a residual variance with degrees of freedom, which "
            "a generalised model has not: use test='chisq'"
        )
    rows = {}
    for term in droppable(fit.design):
        L = contrasts(fit.design, term.name)
        if not len(L):
            rows[term.name] = (np.nan, np.nan, 0, np.nan, np.nan, np.nan)
            continue
        found = contrast_test(fit, L, ddf)
        mean_sq = found.get("F_unscaled", found["F"]) * fit.sigma**2
        k = found["num_df"]
        tested = (k, found["den_df"], found["F"], found["p"])
        rows[term.name] = (mean_sq * k, mean_sq, *tested)
    out = pd.DataFrame.from_dict(rows, orient="index", columns=F_COLUMNS)
    return out.astype({"num_df": int})


def contrasts(design: Design, name: str) -> np.ndarray:
    """L (k, p): L beta = 0 where the mean needs no columns of this term.

    Its own coefficients where the others' columns stay as they are; else what is
    orthogonal to all that the columns of the design without it can say.
    """
    small = without_fixed(design, [name])
    gone = [j for j, x in enumerate(design.x_names) if x not in small.x_names]
    rest = [j for j in range(design.p) if j not in gone]
    if np.array_equal(design.X[:, rest], small.X):
        return np.eye(design.p)[gone]
    inside = np.linalg.lstsq(design.X, small.X, rcond=None)[0]  # (p, p0)
    u, s, _ = np.linalg.svd(inside, full_matrices=True)
    rank = int(np.sum(s > 1e-9 * s.max(initial=1e-300)))
    return u[:, rank:].T


def _by_refits(fit: Any, tested: bool) -> pd.DataFrame:
    whole = with_method(fit, False) if fit.reml else fit
    rows = {NONE: (np.nan, whole.aic, np.nan, np.nan)}
    for term in droppable(fit.design):
        small = fitted_to(whole, without_fixed(whole.design, [term.name]))
        df = whole.npar - small.npar
        rows[term.name] = (df, small.aic, *_ratio(small, whole, df))
    columns = ["df", "aic", "statistic", "p_value"]
    out = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return out if tested else out[["df", "aic"]]


def _ratio(small: Any, big: Any, df: int) -> tuple[float, float]:
    """The likelihood-ratio statistic and its p-value."""
    from scipy import stats

    statistic = max(small.criterion - big.criterion, 0.0)
    return statistic, float(stats.chi2.sf(statistic, df)) if df > 0 else np.nan


def ranova(fit: Any, reduce_terms: bool = True) -> pd.DataFrame:
    """Each random term, or column of one, left out; see ``Fit.ranova``."""
    whole = not _arguments.flag("reduce_terms", reduce_terms)
    if not fit.design.terms:
        raise NotApplicableError("ranova() tests random effects, and there are none")
    if fit.reml and not fit.is_linear:  # the smallest model has no variance at all
        fit = with_method(fit, False)
    rows = [_row(fit)]
    found = reductions(fit.design, whole)
    for at, stay in found.values():
        small = fitted_to(fit, without_random(fit.design, at, stay))
        rows.append(_row(small, fit))
    columns = ["npar", "log_likelihood", "aic", "statistic", "df"]
    columns += ["p_value", "p_boundary"]
    return pd.DataFrame(rows, index=[NONE, *found], columns=columns)


def _row(fit: Any, whole: Any = None) -> tuple:
    facts = (fit.npar, fit.log_likelihood, fit.aic)
    if whole is None:
        return (*facts, np.nan, np.nan, np.nan, np.nan)
    df = whole.npar - fit.npar
    statistic, p = _ratio(fit, whole, df)
    return (*facts, statistic, df, p, boundary_p_value(fit, whole, statistic, df))
