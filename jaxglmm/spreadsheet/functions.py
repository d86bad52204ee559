"""The worksheet functions: check, fit, lay out; whatever goes wrong is a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jaxglmm.spreadsheet import checks
from jaxglmm.spreadsheet.arguments import understood
from jaxglmm.spreadsheet.checks import Arguments
from jaxglmm.spreadsheet.layout import (
    BINOMIAL,
    GAUSSIAN,
    ORDINAL,
    POISSON,
    VISITS,
    Cell,
    Labels,
    table,
)

Table = list[list[Cell]]
MOST_SLOPES = 20
SHORT = {"nested": "nested-laplace", "nested_laplace": "nested-laplace"}


def _worksheet(family: str, name: str, text: str, own: str | None = None):
    """The function of a family; all of them take the arguments of GLMM_POISSON.

    own: an argument that this one takes besides.
    """

    def function(
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
        **more: Any,
    ) -> Table | str:
        strange = [key for key in more if key != own]
        if strange:
            raise TypeError(f"{name}() has no argument {strange[0]!r}")
        given = (y, x, groups, x_random, fit_intercept, alpha, names)
        call = understood(*given, more=more)
        return _answered(family, call, method, _truth(extended))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    return function


glmm_poisson = _worksheet(
    "poisson",
    "glmm_poisson",
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
    """,
)

glmm_negbin = _worksheet(
    "negbin",
    "glmm_negbin",
    """Counts that vary more than a Poisson's: variance mu + mu^2 / dispersion.

    Arguments and table as ``glmm_poisson``; the footer has a row ``dispersion``.
    """,
)

glmm_zinb = _worksheet(
    "zinb",
    "glmm_zinb",
    """Counts with more zeros than a negative binomial has: each row may have none.

    Arguments as ``glmm_poisson``, by maximum likelihood alone (method "laplace").

    Args:
        x_zero: predictors of the probability that a row can only be zero (a logit),
            one a column; without them it is one probability.

    Returns:
        The table of ``glmm_poisson`` with a section ``zero_inflation`` (logits) below
        the coefficients, and ``dispersion`` in the footer.
    """,
    "x_zero",
)

clmm = _worksheet(
    "ordinal",
    "clmm",
    """Ordered categories: cumulative logits with random effects by group.

    Arguments as ``glmm_poisson``, by maximum likelihood alone (method "laplace"). y
    holds numbers, whose order is theirs, or text.

    Args:
        levels: the categories in their order, where y is text.

    Returns:
        The table of ``glmm_poisson`` with odds ratios of being in a higher category,
        and a section ``thresholds`` in the place of the intercept.

    >>> y = [["low"], ["high"], ["mid"], ["low"], ["mid"], ["high"]]
    >>> x, groups = [[0], [1], [1], [0], [0], [1]], [[1], [1], [1], [2], [2], [2]]
    >>> table = clmm(y, x, groups, levels=["low", "mid", "high"])
    >>> [row[:2] for row in table[2:4]]
    [['thresholds', 'low|mid'], ['thresholds', 'mid|high']]
    >>> clmm(y, x, groups)
    'Invalid input: y is text; give levels, the categories in their order.'
    """,
    "levels",
)

glmm_binomial = _worksheet(
    "binomial",
    "glmm_binomial",
    """Zeros and ones with a logit link and random effects by group.

    Arguments as ``glmm_poisson``; with ``extended`` y may have two columns, successes
    and failures. The last column of the table is the odds ratio.
    """,
)

lmm = _worksheet(
    "gaussian",
    "lmm",
    """Numbers with normal errors and random effects by group, by REML.

    Arguments as ``glmm_poisson``; method "reml" (default) or "ml". Tests are by t with
    Satterthwaite's degrees of freedom, which are the last column.
    """,
)

glmm_gaussian = _worksheet(
    "gaussian", "glmm_gaussian", """``lmm`` under the name that goes with the others."""
)


def mmrm(
    y: Any,
    x: Any,
    groups: Any,
    visits: Any = None,
    fit_intercept: Any = True,
    alpha: Any = 0.05,
    *,
    method: Any = None,
    names: Any = None,
    extended: Any = False,
    covariance: Any = None,
) -> Table | str:
    """A mixed model for repeated measures: residuals of a subject are correlated.

    Args:
        y: column of numbers, a row a subject and visit; missing visits have no row.
        x: predictors of the mean, one a column; a header row of text names them.
            Visits are among them where the mean depends on them: a column of zeros
            and ones a visit but the first.
        groups: column of subjects, numbers or text.
        visits: column of visits (it has to be there): numbers, or text in the order in
            which it appears.
        fit_intercept: TRUE for an intercept.
        alpha: one minus the coverage of intervals.
        method: of the tests: "satterthwaite" (default), "kenward-roger",
            "kenward-roger-linear", "between-within" or "residual"; all by REML.
        names: of the columns of x.
        extended: TRUE for further rows: subjects, convergence, intervals of standard
            deviations and correlations.
        covariance: of the visits: "us" (default), "toep", "toeph", "ar1", "ar1h", "cs",
            "csh", "ad", "adh", or "car1", "sp_exp", "sp_gau" of visits that are times.

    Returns:
        The table of ``lmm`` with the standard deviation of each visit in the place of
        random effects; or a text that says what is wrong.

    >>> y = [[5.1], [6.0], [4.2], [5.5], [6.3], [6.6], [4.9], [4.4]]
    >>> subject, week = [[k // 2] for k in range(8)], [[1 + k % 2] for k in range(8)]
    >>> table = mmrm(y, [[float(w == 2)] for (w,) in week], subject, week)
    >>> [row[:2] for row in table[3:6]]
    [['residual_covariance', 'parameter'], ['', '1'], ['', '2']]
    """
    given = (y, x, groups, visits, fit_intercept, alpha, names)
    more = {"covariance": covariance}
    call = understood(*given, fourth="visits", more=more)
    return _answered("visits", call, method, _truth(extended))


@dataclass(frozen=True)
class Contract:
    """What a function says: its labels, its checks in order, and how it reports."""

    labels: Labels
    checks: Callable[[Arguments, bool], Iterator[str | None]]
    error: str


CONTRACTS = {
    "poisson": Contract(POISSON, checks.of_counts, "jaxglmm.glmm error"),
    "negbin": Contract(POISSON, checks.of_counts, "jaxglmm.glmm error"),
    "binomial": Contract(BINOMIAL, checks.of_zeros_and_ones, "Error fitting GLMM"),
    "gaussian": Contract(GAUSSIAN, checks.of_numbers, "jaxglmm.lmm error"),
    "zinb": Contract(POISSON, checks.of_counts, "jaxglmm.glmm error"),
    "ordinal": Contract(ORDINAL, checks.of_categories, "jaxglmm.clmm error"),
    "visits": Contract(VISITS, checks.of_visits, "jaxglmm.mmrm error"),
}


def _answered(family: str, call: Arguments, method: Any, extended: bool) -> Table | str:
    """The table, or the first text about what is wrong."""
    contract = CONTRACTS[family]
    text = checks.first(contract.checks(call, extended))
    if text is not None:
        return text
    try:
        return _table(family, contract.labels, call, method, extended)
    except Exception as error:  # a worksheet shows texts, never exceptions
        return f"{contract.error}: {_one_line(error)}"


def _table(
    family: str, labels: Labels, call: Arguments, method: Any, extended: bool
) -> Table:
    """Fit and lay out; raises where it cannot."""
    from jaxglmm.spreadsheet.estimate import answer, arrays
    from jaxglmm.spreadsheet.methods import METHODS

    chosen = next(iter(METHODS[family]))
    if method is not None and str(method).strip():
        chosen = str(method).strip().lower()
        chosen = SHORT.get(chosen, chosen)
    if chosen not in METHODS[family]:
        known = ", ".join(repr(m) for m in METHODS[family])
        raise ValueError(f"method {str(method)!r} is not one of {known}")
    slopes = None if call.fourth == "visits" else call.x_random
    k_random = 0 if slopes is None else len(slopes[0])
    _sizes(call, k_random)
    variances = labels.random(k_random, call.random_names)
    data = arrays(call, variances)
    k = len(call.x[0])
    if call.names is not None and len(call.names) != k:
        raise ValueError(f"{len(call.names)} names for {k} columns of x")
    names = labels.coefficients(k, bool(call.fit_intercept), call.names)
    shown = names if len(names) == data.p else ["Intercept", *names]
    _independent(data.X, shown)
    found = answer(METHODS[family][chosen], data, extended)
    _finite(found)
    return table(found, labels, names, data.alpha, extended)


def _sizes(call: Arguments, k_random: int) -> None:
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
    for _, values, errors in found.sections.values():
        numbers += [*values, *errors]
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
