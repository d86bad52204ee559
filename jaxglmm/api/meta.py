"""Meta-analysis: effects of studies with known sampling variances."""

from __future__ import annotations

import time
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, ModelError
from jaxglmm._hints import unknown_argument
from jaxglmm.api.given import check_numbers, read_design
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import meta_moments as moments
from jaxglmm.fitting.fit_design import fit_correlated
from jaxglmm.fitting.meta_analysis import METHODS, STUDY, TESTS
from jaxglmm.formula import notices
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.formula.known_residual import independent, with_covariance
from jaxglmm.results import faces
from jaxglmm.results.meta_fit import MetaFit


def meta(
    formula: Any,
    data: Any = None,
    variance: Any = None,
    groups: Any = None,
    *,
    random_effects: dict | None = None,
    random_data: dict | None = None,
    method: str = "REML",
    test: str = "z",
    conf_level: float = 0.95,
    missing: str = "drop",
    contrasts: dict | None = None,
    fixed: dict | None = None,
    start: dict | None = None,
    tol: float = 1e-9,
    max_iter: int = 200,
    **unknown: Any,
) -> MetaFit:
    """A meta-analysis or meta-regression, of one or several levels.

    It is ``jg.lmm`` with a residual covariance that is known. As metafor's ``rma`` and
    ``rma.mv``.

    Args:
        formula: ``"yi ~ 1"``, with moderators ``"yi ~ ablat + alloc"``; random effects
            as in ``lmm``: ``"yi ~ x + (1 | district/school)"``, of outcomes or arms
            that differ ``(0 + outcome | trial)`` (any covariance, metafor's UN),
            ``homcs(0 + outcome | trial)`` (its CS), ``cs`` (its HCS), ``ar1``. Without
            any there is a variance between rows. Or the effects themselves, (k,).
        data: a table with a row an effect; or the design X (k, p) of the second form,
            by default a column of ones.
        variance: sampling variances: a column, or (k,). Where sampling errors are
            correlated their covariance V: (k, k), sparse, or a list of blocks in the
            order of the rows.
        groups: factor -> labels (k,), in the second form.
        random_effects: as for ``lmm``, in the second form.
        random_data: as for ``lmm``, in the second form.
        method: "REML" or "ML". Of one variance between independent studies also "DL"
            (DerSimonian and Laird), "HE" (Hedges), "SJ" (Sidik and Jonkman), "PM"
            (Paule and Mandel). "EE": equal effects, no random effects.
        test: "z", "t" (k - p degrees of freedom), or "knha" (Knapp and Hartung).
        conf_level: of intervals.
        missing: "drop" or "raise".
        contrasts: column -> coding of a factor.
        fixed: name -> value of parameters that are held, as for ``lmm``.
        start: name -> value to start from.
        tol: as for ``lmm``.
        max_iter: as for ``lmm``.
        unknown: none.

    Returns:
        A ``MetaFit``: ``table``, ``tau2``, ``Q``, ``I2``, ``predict()``, ``blup()``,
        ``plot.forest()``; ``model`` is the mixed model.

    Raises:
        FormulaError, DataError, ModelError: what cannot be used, and what to change.

    >>> import jaxglmm as jg
    >>> studies = {"yi": [0.1, 0.5, 0.3, 0.9], "vi": [0.04, 0.02, 0.05, 0.03]}
    >>> round(jg.meta("yi ~ 1", studies, "vi", method="DL").tau2, 4)
    0.0753
    """
    if unknown:
        raise unknown_argument("jg.meta", unknown, signature(meta).parameters)
    method = _checked_method(method, test)
    if variance is None:
        raise ModelError(
            "variance= is missing: the column of the studies' sampling variances "
            "(squared standard errors), variance='vi', or their covariance matrix"
        )
    level = _arguments.level(conf_level, "conf_level", ModelError)
    began = time.perf_counter()
    if not isinstance(formula, str) and data is None:
        data = np.ones((np.size(formula), 1))
    given = {"random_effects": random_effects, "random_data": random_data}
    options = {"missing": missing, "contrasts": contrasts, "correlated": True, **given}
    design, sigma = _read(formula, data, variance, groups, options)
    design = _with_studies(design, method)
    _refuse(design, method, test)
    held, error = {"sigma": sigma} | _checked_held(fixed), np.nan
    if method in moments.MOMENTS:
        tau2, error = _by_moments(design, sigma, method)
        held[f"sd_(Intercept)|{design.terms[0].label}"] = float(np.sqrt(tau2)) * sigma
    steps = check_numbers(tol, max_iter)
    own = {"kinds": faces.face, "fixed": held, "start": start or {}, "zero": True}
    model = fit_correlated(
        design, Maximise(method == "REML"), *steps, began, ddf="residual", **own
    )
    model.diagnostics["conf_level"] = level
    is_held = bool(set(model.design.fixed) - {"sigma", *design.x_names})
    if method in ("REML", "ML") and _is_single(design) and not is_held:
        error = _error(model, sigma, method == "REML")
    return MetaFit(model, method, test, level, error)


def _checked_method(method: Any, test: Any) -> str:
    method = method.upper() if isinstance(method, str) else method
    method = "EE" if method in ("FE", "CE") else method
    if method not in METHODS:
        raise ModelError(f"method={method!r} is not one of {', '.join(METHODS)}")
    if test not in TESTS:
        raise ModelError(f"test={test!r} is not one of {', '.join(TESTS)}")
    return method


def _by_moments(design: Design, sigma: float, method: str) -> tuple[float, float]:
    """tau^2 over sigma^2, and the standard error of tau^2."""
    assert design.weights is not None
    v, y = 1.0 / design.weights, design.y / sigma  # of about one
    tau2, error = moments.tau2_of(y, design.X, v, method)
    return tau2, error * sigma**2


def _error(model: Any, sigma: float, reml: bool) -> float:
    """Of the variance between studies."""
    design = model.design
    variance = float(model.varcorr[design.terms[0].label].cov.iloc[0, 0])
    v, tau2 = 1.0 / design.weights, variance / sigma**2
    return moments.error_of(design.X, v, tau2, reml) * sigma**2


def _checked_held(fixed: Any) -> dict:
    if fixed is not None and not isinstance(fixed, dict):
        raise ModelError("fixed= is a dict from names of parameters to values")
    if fixed and "sigma" in fixed:
        raise ModelError(
            "fixed={'sigma': ...}: sigma is what variance= says. Multiply the variances"
        )
    return dict(fixed or {})


def _read(
    formula: Any, data: Any, variance: Any, groups: Any, options: dict
) -> tuple[Design, float]:
    """The design with residuals of known covariance, and the sigma of weight one."""
    matrix = not isinstance(variance, str) and (
        hasattr(variance, "toarray")
        or (isinstance(variance, list | tuple) and np.ndim(variance[0]) == 2)
        or (np.ndim(variance) == 2 and 1 not in np.shape(variance)[1:])
    )
    if not matrix and np.ndim(variance) == 2:
        variance = np.ravel(variance)
    if not isinstance(formula, str) and groups is None:
        groups = {STUDY: np.arange(1, np.size(formula) + 1)}
    if matrix:
        design = read_design("meta", formula, data, groups, **options)
        design = with_covariance(design, variance, "variance")
        weights = design.weights
        assert weights is not None
        v = 1.0 / weights
    else:
        options |= {"weights": variance}
        try:
            with notices.said(_of_variances):
                design = read_design("meta", formula, data, groups, **options)
        except DataError as error:
            raise DataError(_of_variances(str(error))) from None
        v = design.weights
        assert v is not None
        bad = np.flatnonzero(~(v > 0))
        if len(bad):
            rows = bad if design.rows is None else design.rows[bad]
            raise DataError(
                f"{len(bad)} sampling variances are not positive, the first of row "
                f"{rows[0]}; leave these studies out"
            )
        design = replace(design, residual=independent(design.n))
    if design.offset is not None:
        design = replace(design, y=design.y - design.offset, offset=None)
    # in units of a middling variance: none is too large or too small then
    unit = float(np.exp(np.median(np.log(v))))
    return replace(design, weights=unit / v), float(np.sqrt(unit))


def _of_variances(message: str) -> str:
    """What is said of weights, of variances."""
    text = message.replace("weights", "variances")
    if "all variances are zero" in text:
        return "all sampling variances are zero: no effect is known without error"
    return text.replace("must not be negative", "must be positive")


def _with_studies(design: Design, method: str) -> Design:
    """A variance between rows where the formula names none."""
    if method == "EE":
        return replace(design, terms=())
    if design.terms:
        return design
    term = RandomTerm(
        STUDY,
        STUDY,
        ("(Intercept)",),
        np.arange(design.n, dtype=np.int32),
        np.ones((design.n, 1)),
        np.arange(1, design.n + 1),
    )
    return replace(design, terms=(term,))


def _is_single(design: Design) -> bool:
    """One variance between independent rows."""
    assert design.residual is not None
    own = [t.names == ("(Intercept)",) and t.n_levels == design.n for t in design.terms]
    return own == [True] and design.residual.known is None


def _refuse(design: Design, method: str, test: str) -> None:
    k, p = design.n, design.p
    what = "study" if k == 1 else "studies"
    terms = "coefficient" if p == 1 else "coefficients"
    if method != "EE" and k <= p:
        raise ModelError(
            f"{k} {what} and {p} {terms}: nothing is left to estimate variances from. "
            "method='EE' (equal effects) needs nothing"
        )
    if test != "z" and k <= p:
        raise ModelError(
            f"{k} {what} and {p} {terms} leave no degrees of freedom for "
            f"test={test!r}; use test='z'"
        )
    if method in moments.MOMENTS and not _is_single(design):
        raise ModelError(
            f"method={method!r} is for one variance between independent studies of a "
            "row each; REML and ML fit several levels and correlated sampling errors"
        )
    if test == "knha" and not (_is_single(design) or method == "EE"):
        raise ModelError(
            "test='knha' is for one variance between independent studies; take "
            "test='t', or Satterthwaite's degrees of freedom of the mixed model: "
            "fit.model.coefficient_table('satterthwaite')"
        )
