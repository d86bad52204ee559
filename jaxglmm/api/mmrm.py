"""Mixed models for repeated measures: ``lmm`` with the residual in the formula."""

from __future__ import annotations

import time
from inspect import signature
from typing import Any

from jaxglmm import _arguments
from jaxglmm._errors import FormulaError, ModelError
from jaxglmm._hints import unknown_argument
from jaxglmm.api.given import check_numbers, checked_ddf, estimator_of, read_design
from jaxglmm.fitting.fit_design import fit_correlated
from jaxglmm.fitting.fitted_correlated import VCOV
from jaxglmm.formula.residual import PLACES, taken_apart
from jaxglmm.results import faces
from jaxglmm.results.correlated_fit import CorrelatedFit


def mmrm(
    formula: str,
    data: Any = None,
    *,
    reml: bool = True,
    ddf: str = "satterthwaite",
    vcov: str = "asymptotic",
    weights: Any = None,
    offset: Any = None,
    tol: float = 1e-8,
    max_iter: int = 200,
    missing: str = "drop",
    conf_level: float = 0.95,
    contrasts: dict | None = None,
    **unknown: Any,
) -> CorrelatedFit:
    """Fit a mixed model for repeated measures (MMRM).

    The covariance of a subject's visits stands in the formula, as in the R package
    mmrm; it is ``jg.lmm(..., residual=)`` in other words.

    Args:
        formula: ``"change ~ base + arm * visit + us(visit | subject)"``, with one of
            us, toep, toeph, ar1, ar1h, cs, csh, ad, adh, sp_exp, sp_gau, car1, arma11
            (an ``h``: a standard deviation a visit). ``us(visit | arm / subject)``: a
            covariance a group. Random effects may stand beside it.
        data: a pandas or polars frame, a pyarrow table or a dict of arrays, one row a
            subject and visit. The order of visits is that of a categorical's levels.
            Rows with missing values are dropped: visits may be missing.
        reml: restricted maximum likelihood (True) or maximum likelihood.
        ddf: degrees of freedom: "satterthwaite", "kenward-roger" (with the adjusted
            covariance), "kenward-roger-linear" (without second derivatives of the
            covariance, what SAS prints for ``us``), "between-within" or "residual".
        vcov: covariance of the coefficients: "asymptotic"; "empirical" (CR0),
            "empirical-jackknife" (CR3), "empirical-bias-reduced" (CR2). Kenward and
            Roger's methods have their own.
        weights: column name or (n,): V_ij is Sigma_ij / sqrt(w_i w_j).
        offset: known part of the mean, column name or (n,).
        tol: as for ``lmm``.
        max_iter: as for ``lmm``.
        missing: as for ``lmm``.
        conf_level: as for ``lmm``.
        contrasts: as for ``lmm``.
        unknown: none; other packages' names raise an ``ArgumentError`` with ours.

    Returns:
        A ``CorrelatedFit``; it has ``predictions`` and ``contrasts`` by visit.

    Raises:
        FormulaError, DataError, ModelError: no covariance in the formula, a visit twice
            in a subject, a covariance as large as the data; the message says what to
            change.

    Method: the exact likelihood with its exact Hessian (Jennrich and Schluchter 1986);
    Satterthwaite's and Kenward and Roger's (1997) methods from the same.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> fit = jg.mmrm("Reaction ~ Days + ar1(Days | Subject)", sleep)
    >>> round(fit.criterion, 2), fit.denominator_df.round(1).tolist()
    (1766.8, [28.8, 42.7])
    """
    if unknown:
        raise unknown_argument("jg.mmrm", unknown, signature(mmrm).parameters)
    estimator = estimator_of(None, reml)
    ddf = checked_ddf(ddf)
    vcov = vcov.lower() if isinstance(vcov, str) else vcov
    vcov = _arguments.choice("vcov", vcov, VCOV)
    if vcov != "asymptotic" and ddf.startswith("kenward-roger"):
        raise ModelError(
            f"ddf={ddf!r} has an adjusted covariance of its own, and vcov={vcov!r} "
            "asks for another; use ddf='satterthwaite' with it"
        )
    conf_level = _arguments.level(conf_level, "conf_level", ModelError)
    tol, max_iter = check_numbers(tol, max_iter)
    started = time.perf_counter()
    plain, residual = taken_apart(formula)
    if residual is None:
        raise FormulaError(
            f"{formula!r} has no covariance of the visits; add one of "
            f"{', '.join(PLACES)}, as in 'y ~ arm * visit + us(visit | subject)'"
        )
    design = read_design(
        "mmrm",
        plain,
        data,
        None,
        random_effects=None,
        random_data=None,
        correlated=True,
        weights=weights,
        offset=offset,
        missing=missing,
        contrasts=contrasts,
        residual=residual,
    )
    options = {"kinds": faces.face, "ddf": ddf, "vcov": vcov}
    fit = fit_correlated(design, estimator, tol, max_iter, started, **options)
    fit.diagnostics["conf_level"] = conf_level
    return fit
