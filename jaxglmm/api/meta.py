"""Meta-analysis: effects of studies with known sampling variances."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, ModelError
from jaxglmm._hints import unknown_argument
from jaxglmm.api.given import read_design
from jaxglmm.fitting.meta_analysis import METHODS, TESTS, MetaFit, analyse


def meta(
    formula: str,
    data: Any = None,
    variance: Any = None,
    *,
    method: str = "REML",
    test: str = "z",
    conf_level: float = 0.95,
    missing: str = "drop",
    contrasts: dict | None = None,
    **unknown: Any,
) -> MetaFit:
    """A random-effects meta-analysis or meta-regression, as ``metafor::rma``.

    Args:
        formula: "yi ~ 1", with moderators "yi ~ ablat + alloc". The variance between
            studies is part of the model; "(1 | study)" may say so.
        data: a table with a row a study.
        variance: name of the column of sampling variances, or (k,).
        method: of tau^2: "REML", "ML", "DL" (DerSimonian and Laird), "HE" (Hedges),
            "SJ" (Sidik and Jonkman), "PM" (Paule and Mandel), "EE" (equal effects).
        test: "z", "t" (k - p degrees of freedom), or "knha" (Knapp and Hartung).
        conf_level: of intervals.
        missing: "drop" or "raise".
        contrasts: column -> coding of a factor.
        unknown: none.

    Returns:
        A ``MetaFit``: ``table``, ``tau2``, ``Q``, ``I2``, ``predict()``, ``blup()``.

    Raises:
        FormulaError, DataError, ModelError: what cannot be used, and what to change.

    >>> import jaxglmm as jg
    >>> studies = {"yi": [0.1, 0.5, 0.3, 0.9], "vi": [0.04, 0.02, 0.05, 0.03]}
    >>> round(jg.meta("yi ~ 1", studies, "vi", method="DL").tau2, 4)
    0.0753
    """
    if unknown:
        raise unknown_argument("jg.meta", unknown, signature(meta).parameters)
    method = method.upper() if isinstance(method, str) else method
    if method in ("FE", "CE"):
        method = "EE"
    if method not in METHODS:
        raise ModelError(f"method={method!r} is not one of {', '.join(METHODS)}")
    if test not in TESTS:
        raise ModelError(f"test={test!r} is not one of {', '.join(TESTS)}")
    if variance is None:
        raise ModelError(
            "variance= is missing: the column of the studies' sampling variances "
            "(squared standard errors), variance='vi'"
        )
    level = _arguments.level(conf_level, "conf_level", ModelError)
    design = read_design(
        "meta",
        formula,
        data,
        None,
        random_effects=None,
        random_data=None,
        correlated=True,
        contrasts=contrasts,
        weights=variance,
        missing=missing,
    )
    for term in design.terms:
        one = term.names == ("(Intercept)",) and term.n_levels == design.n
        if len(design.terms) > 1 or not one:
            raise ModelError(
                f"(... | {term.factor}): jg.meta has one variance, between studies of "
                f"one row each; {term.factor!r} has {term.n_levels} levels in "
                f"{design.n} rows"
            )
    v = design.weights
    assert v is not None
    bad = np.flatnonzero(~(v > 0))
    if len(bad):
        raise DataError(
            f"{len(bad)} sampling variances are not positive, the first of row "
            f"{bad[0]}; leave these studies out"
        )
    if design.n <= design.p:
        raise ModelError(f"{design.n} studies and {design.p} coefficients")
    return analyse(design.y, design.X, design.x_names, v, method, test, level)
