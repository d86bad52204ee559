"""Checks of a response on the host: the first rows that do not fit, and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import DataError, ModelError, UnboundedLikelihoodError


def shown(bad: np.ndarray, y: np.ndarray, rows: Any = None) -> str:
    """``3 values, the first 1.5 (row 2), 0.5 (row 7)``."""
    at = np.flatnonzero(bad)
    places = at if rows is None else np.asarray(rows)[at]
    first = ", ".join(
        f"{y[i]:g} (row {r})" for i, r in zip(at[:3], places[:3], strict=True)
    )
    if len(at) == 1:
        return f"one value, {first}"
    return f"{len(at)} values, {'all of them' if len(at) <= 3 else 'the first'} {first}"


def finite(y: np.ndarray, rows: Any = None) -> None:
    """No NaN, no infinity."""
    bad = ~np.isfinite(y)
    if bad.any():
        raise DataError(
            f"the response is not finite: {shown(bad, y, rows)}. Remove these rows or "
            "correct them"
        )


def counts(family: str, y: np.ndarray, rows: Any = None) -> None:
    """Whole numbers, not negative."""
    finite(y, rows)
    negative = y < 0
    if negative.any():
        raise DataError(
            f"family={family!r} needs counts 0, 1, 2, ...; the response has negative "
            f"values: {shown(negative, y, rows)}"
        )
    broken = y != np.round(y)
    if broken.any():
        raise DataError(
            f"family={family!r} needs whole counts; the response has fractions: "
            f"{shown(broken, y, rows)}. Give rates as counts with "
            "offset=log(exposure), positive measurements to family='gamma'"
        )


def no_zeros(family: str, y: np.ndarray, rows: Any, remedy: str) -> None:
    """None is zero."""
    bad = y == 0
    if bad.any():
        raise DataError(
            f"family={family!r} has no zeros; the response has {shown(bad, y, rows)}. "
            f"{remedy}"
        )


def not_all_zero(family: str, y: np.ndarray) -> None:
    """Counts that are all zero have no finite estimate."""
    if not y.any():
        raise UnboundedLikelihoodError(
            f"every count is zero: with family={family!r} the estimate of the mean "
            "runs off to zero (log mean to minus infinity). There is nothing to fit "
            "without a prior: method='nested-laplace' has one",
            status=_status.CONSTANT,
        )


def positive(family: str, y: np.ndarray, rows: Any = None) -> None:
    """Greater than zero."""
    finite(y, rows)
    bad = y <= 0
    if bad.any():
        raise DataError(
            f"family={family!r} needs values greater than zero; the response has "
            f"{shown(bad, y, rows)}. Zeros need another model (counts, or a separate "
            "model of zero against positive: zi='~ 1')"
        )


def not_negative(family: str, y: np.ndarray, rows: Any = None) -> None:
    """Zero or greater."""
    finite(y, rows)
    bad = y < 0
    if bad.any():
        raise DataError(
            f"family={family!r} needs values of zero or greater; the response has "
            f"{shown(bad, y, rows)}"
        )


def shares(family: str, y: np.ndarray, rows: Any = None) -> None:
    """Between zero and one, ends included."""
    finite(y, rows)
    bad = (y < 0) | (y > 1)
    if bad.any():
        raise DataError(
            f"family={family!r} needs values from 0 to 1; the response has "
            f"{shown(bad, y, rows)}. Percentages are proportions times 100; successes "
            "out of trials belong to family='binomial'"
        )


def between(family: str, y: np.ndarray, rows: Any = None) -> None:
    """Strictly between zero and one."""
    finite(y, rows)
    bad = (y <= 0) | (y >= 1)
    if bad.any():
        raise DataError(
            f"family={family!r} needs values strictly between 0 and 1; the response "
            f"has {shown(bad, y, rows)}. Successes out of trials belong to "
            "family='binomial'; exact zeros and ones to family='ordbeta', or to "
            "zi='~ 1' and family='one_inflated_beta'"
        )


def varies(family: str, y: np.ndarray) -> None:
    """Not all the same: the dispersion would be zero."""
    if len(y) and (y == y[0]).all():
        raise ModelError(
            f"the response is constant ({y[0]:g}): with family={family!r} its "
            "dispersion has no positive estimate",
            status=_status.CONSTANT,
        )


def no_trials(family: str, trials: Any) -> None:
    """Trials given to a family that has none."""
    if trials is not None:
        raise DataError(
            f"trials= and successes out of trials are for family='binomial' and "
            f"'betabinomial', not {family!r}"
        )


def out_of_trials(
    family: str, y: np.ndarray, trials: Any = None, rows: Any = None
) -> None:
    """Whole successes, none above its trials; without trials 0 and 1."""
    finite(y, rows)
    m = np.ones_like(y) if trials is None else np.broadcast_to(trials, y.shape)
    bad = ~(m > 0) | (m != np.round(m)) | np.isinf(m)
    if bad.any():
        raise DataError(
            f"every row needs a positive whole number of trials (successes + failures "
            f"> 0); trials has {shown(bad, m, rows)}"
        )
    broken = (y < 0) | (y != np.round(y))
    if broken.any():
        raise DataError(
            f"family={family!r} needs whole numbers of successes; the response has "
            f"{shown(broken, y, rows)}. Proportions need their trials: pass trials= "
            "(or weights=) the number of trials of each row"
        )
    above = y > m
    if above.any() and trials is None:
        raise DataError(
            f"family={family!r} without trials needs 0 and 1; the response has "
            f"{shown(above, y, rows)}. For counts out of trials write "
            "cbind(successes, failures) on the left side, or pass trials="
        )
    if above.any():
        i = int(np.flatnonzero(above)[0])
        raise DataError(
            f"more successes than trials in {int(above.sum())} rows; row "
            f"{i if rows is None else np.asarray(rows)[i]} has {y[i]:g} of {m[i]:g}"
        )
    if len(y) and ((y == 0).all() or (y == m).all()):
        what = "failures" if (y == 0).all() else "successes"
        raise UnboundedLikelihoodError(
            f"the response is all {what}: the data are separated, and the log odds "
            f"run off to {'minus' if what == 'failures' else 'plus'} infinity. There "
            "is nothing to fit without a prior: method='nested-laplace' has one",
            status=_status.CONSTANT,
        )
