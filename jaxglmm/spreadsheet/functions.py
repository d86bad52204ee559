"""The worksheet functions: check, fit, lay out; whatever goes wrong is a text."""

from __future__ import annotations

from typing import Any

from jaxglmm.spreadsheet import checks
from jaxglmm.spreadsheet.arguments import Call, understood
from jaxglmm.spreadsheet.layout import (
    BINOMIAL,
    GAUSSIAN,
    POISSON,
    Cell,
    Labels,
    table,
)

Table = list[list[Cell]]
MOST_SLOPES = 20
SHORT = {"nested": "nested-laplace", "nested_laplace": "nested-laplace"}


def glmm_poisson(
    y: Any,
    x: Any,
    groups: Any,
    x_random: Any = None,
    fit_intercept: Any = True,
    alpha: Any = 0.05,
    *,
    method: Any = None,
    names: Any = None,
    extended: Any = False,
) -> Table | str:
    """Counts with a log link and random effects by group.

    Args:
        y: column of counts.
        x: predictors, one a column; a header row of text names them.
        groups: column of labels, numbers or text.
        x_random: predictors whose slopes vary by group, independently; an intercept
            varies anyway. A scalar here is understood as ``fit_intercept`` or
            ``alpha``.
        fit_intercept: TRUE for a fixed intercept.
        alpha: one minus the coverage of intervals.
        method: "laplace" (maximum likelihood) or "vb" (mean field under the reference
            priors); default the posterior under those priors.
        names: of the columns of x.
        extended: TRUE for further rows: groups, convergence, predicted effects,
            intervals of ratios and standard deviations.

    Returns:
        Rows of nine cells; or a text that says what is wrong.

    >>> groups = [["a"], ["a"], ["a"], ["b"], ["b"], ["b"]]
    >>> y = [[2], [3], [5], [1], [2], [4]]
    >>> x = [["dose"], [1], [2], [3], [1], [2], [3]]
    >>> [row[1] for row in glmm_poisson(y, x, groups)[:3]]
    ['parameter', 'Intercept', 'dose']
    """
    call = understood(y, x, groups, x_random, fit_intercept, alpha, names)
    return _poisson_like("poisson", POISSON, call, method, extended, "jaxglmm.glmm")


def glmm_negbin(
    y: Any,
    x: Any,
    groups: Any,
    x_random: Any = None,
    fit_intercept: Any = True,
    alpha: Any = 0.05,
    *,
    method: Any = None,
    names: Any = None,
    extended: Any = False,
) -> Table | str:
    """Counts that vary more than a Poisson's: variance mu + mu^2 / dispersion.

    Arguments and table as ``glmm_poisson``; the footer has a row ``dispersion``.
    """
    call = understood(y, x, groups, x_random, fit_intercept, alpha, names)
    return _poisson_like("negbin", POISSON, call, method, extended, "jaxglmm.glmm")


def glmm_binomial(
    y: Any,
    x: Any,
    groups: Any,
    x_random: Any = None,
    fit_intercept: Any = True,
    alpha: Any = 0.05,
    *,
    method: Any = None,
    names: Any = None,
    extended: Any = False,
) -> Table | str:
    """Zeros and ones with a logit link and random effects by group.

    Arguments as ``glmm_poisson``; with ``extended`` y may have two columns, successes
    and failures. The last column of the table is the odds ratio.
    """
    call = understood(y, x, groups, x_random, fit_intercept, alpha, names)
    wide = _truth(extended)
    text = checks.first(
        checks.binomial_order(
            call.y,
            call.x,
            call.groups,
            call.x_random,
            call.fit_intercept,
            call.alpha,
            pairs=wide,
        )
    )
    if text is not None:
        return text
    try:
        return _table("binomial", BINOMIAL, call, method, wide)
    except Exception as error:  # a worksheet shows texts, never exceptions
        return f"Error fitting GLMM: {_one_line(error)}"


def lmm(
    y: Any,
    x: Any,
    groups: Any,
    x_random: Any = None,
    fit_intercept: Any = True,
    alpha: Any = 0.05,
    *,
    method: Any = None,
    names: Any = None,
    extended: Any = False,
) -> Table | str:
    """Numbers with normal errors and random effects by group, by REML.

    Arguments as ``glmm_poisson``; method "reml" (default) or "ml". Tests are by t with
    Satterthwaite's degrees of freedom, which are the last column.
    """
    call = understood(y, x, groups, x_random, fit_intercept, alpha, names)
    return _poisson_like("gaussian", GAUSSIAN, call, method, extended, "jaxglmm.lmm")


def glmm_gaussian(
    y: Any,
    x: Any,
    groups: Any,
    x_random: Any = None,
    fit_intercept: Any = True,
    alpha: Any = 0.05,
    *,
    method: Any = None,
    names: Any = None,
    extended: Any = False,
) -> Table | str:
    """``lmm`` under the name that goes with the others."""
    return lmm(
        y,
        x,
        groups,
        x_random,
        fit_intercept,
        alpha,
        method=method,
        names=names,
        extended=extended,
    )


def _poisson_like(
    family: str, labels: Labels, call: Call, method: Any, extended: Any, engine: str
) -> Table | str:
    """The contract of GLMM_POISSON."""
    text = checks.first(
        checks.poisson_order(
            call.y,
            call.x,
            call.groups,
            call.x_random,
            call.fit_intercept,
            call.alpha,
            count=family != "gaussian",
        )
    )
    if text is not None:
        return text
    try:
        return _table(family, labels, call, method, _truth(extended))
    except Exception as error:  # a worksheet shows texts, never exceptions
        return f"{engine} error: {_one_line(error)}"


def _table(
    family: str, labels: Labels, call: Call, method: Any, extended: bool
) -> Table:
    """Fit and lay out; raises where it cannot."""
    from jaxglmm.spreadsheet.estimate import DEFAULTS, METHODS, answer, arrays

    chosen = DEFAULTS[family]
    if method is not None and str(method).strip():
        chosen = str(method).strip().lower()
        chosen = SHORT.get(chosen, chosen)
    if chosen not in METHODS[family]:
        known = ", ".join(repr(m) for m in METHODS[family])
        raise ValueError(f"method {str(method)!r} is not one of {known}")
    k_random = 0 if call.x_random is None else len(call.x_random[0])
    _sizes(call, k_random)
    variances = labels.random(k_random, call.random_names)
    data = arrays(call, variances)
    k = len(call.x[0])
    if call.names is not None and len(call.names) != k:
        raise ValueError(f"{len(call.names)} names for {k} columns of x")
    names = labels.coefficients(k, bool(call.fit_intercept), call.names)
    _independent(data.X, names)
    found = answer(data, family, chosen, extended)
    _finite(found)
    return table(found, labels, names, data.alpha, extended)


def _sizes(call: Call, k_random: int) -> None:
    """Refuse what could not be estimated before arrays of it are made."""
    n, k = len(call.x), len(call.x[0]) + bool(call.fit_intercept)
    if k > n:
        raise ValueError(
            f"{k} coefficients for {n} rows have no unique estimate; leave columns of "
            "x out"
        )
    if k_random > MOST_SLOPES:
        raise ValueError(
            f"x_random has {k_random} columns; at most {MOST_SLOPES} slopes can vary"
        )


def _independent(X: Any, names: list[str]) -> None:
    """Refuse columns that others determine before anything is compiled."""
    from jaxglmm.formula.rank import dependent_columns

    lost = [names[j] for j in dependent_columns(X)]
    if lost:
        raise ValueError(
            f"columns of x depend on each other: {', '.join(lost)}. Leave them out"
        )


def _finite(found: Any) -> None:
    import numpy as np

    numbers = [*found.coefficients, *found.errors, found.log_likelihood]
    if not np.isfinite(np.asarray(numbers, float)).all():
        raise ValueError("Model produced non-finite values.")
    if not np.isfinite([c.sd for c in found.components]).all():
        raise ValueError("Random effects contain non-finite values.")


def _truth(value: Any) -> bool:
    """TRUE of any spreadsheet."""
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes")
    return bool(value)


def _one_line(error: Exception) -> str:
    """The text of an exception on one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
