"""Patterns that simulated residuals may have: in time, in space, along a predictor.

The statistics are those of DHARMa in R (Durbin and Watson's, Moran's I, quantiles along
a predictor, uniformity and homogeneity by level); their p-values are the draws'. A
random effect that is drawn anew leaves residuals of a level alike in data and draws, so
that it is no finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.postestimation.checking.against_draws import (
    Test,
    distances,
    tabulated,
    two_sided,
    upper,
)

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = (0.25, 0.5, 0.75)
BINS = 10  # along a predictor, with as many rows each
PLACES = 4000  # of which all pairs are looked at
EDGE = 1e-6  # of (0, 1), where a normal score ends


class Scaled(Protocol):
    """What is needed of simulated residuals."""

    scaled: np.ndarray
    predicted: np.ndarray
    draws: np.ndarray | None
    used: np.ndarray

    def labels(self, groups: Any) -> tuple[str, np.ndarray]:
        """Name and values, a row each."""
        ...


def scores(found: Scaled) -> np.ndarray:
    """(d, rows) normal scores: of the data, then of the draws where they are kept."""
    from scipy import special

    values = found.scaled[found.used][None] if found.draws is None else found.draws
    return special.ndtri(np.clip(values, EDGE, 1 - EDGE))


def temporal(found: Scaled, time: Any, within: Any = None) -> Test:
    """Durbin and Watson's statistic of residuals in order of time: 2 without pattern.

    Args:
        found: simulated residuals.
        time: a variable of the model or numbers, a row each; rows of one time (and one
            level of ``within``) count with their mean.
        within: a variable or labels; only neighbours of one level are compared.

    Raises:
        DataError: times that are no finite numbers; NotApplicableError: fewer than
            three times.
    """
    t = _numbers(found, time, "time")
    _, labels = found.labels(within) if within is not None else ("", np.zeros(len(t)))
    labels = np.asarray(labels)[found.used] if within is not None else np.zeros(len(t))
    _, group = np.unique(labels.astype(str), return_inverse=True)
    z, (group, t) = _at_places(scores(found), group, t)
    order = np.lexsort((t, group))
    z, group = z[:, order], group[order]
    near = group[1:] == group[:-1]
    if near.sum() < 2:
        raise NotApplicableError(
            f"temporal(): {int(near.sum())} pairs of neighbouring times are too few"
        )
    steps = (z[:, 1:] - z[:, :-1])[:, near]
    _, group = np.unique(group, return_inverse=True)
    counts = np.bincount(group)
    means = np.stack([np.bincount(group, row) for row in z]) / counts
    centred = z - means[:, group]  # a level's own mean is no pattern in time
    share = near.sum() / (len(group) - len(counts))  # one, but for levels of one time
    value = np.sum(steps**2, axis=1) / np.sum(centred**2, axis=1) / share
    if found.draws is not None:
        return two_sided(value)
    return _normal(float(value[0]), 2.0, 2 / np.sqrt(near.sum()))


def spatial(found: Scaled, x: Any, y: Any) -> Test:
    """Moran's I of residuals, pairs weighted by one over their distance.

    Args:
        found: simulated residuals.
        x: a variable of the model or numbers, a row each.
        y: the other coordinate; rows of one place count with their mean.

    Raises:
        NotApplicableError: fewer than three places or more than 4,000.
    """
    z, (x, y) = _at_places(
        scores(found), _numbers(found, x, "x"), _numbers(found, y, "y")
    )
    n = len(x)
    if not 3 <= n <= PLACES:
        raise NotApplicableError(
            f"spatial() looks at all pairs of 3 to {PLACES:,} places; there are {n:,}"
        )
    with np.errstate(divide="ignore"):
        W = 1 / np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(W, 0.0)
    centred = z - z.mean(axis=1, keepdims=True)
    between = np.einsum("di,di->d", centred @ W, centred)
    value = n / W.sum() * between / np.sum(centred**2, axis=1)
    if found.draws is not None:
        return two_sided(value)
    expected = -1 / (n - 1)  # Cliff and Ord's moments under normality
    S0, S1 = W.sum(), 2 * np.sum(W**2)
    S2 = np.sum((2 * W.sum(axis=1)) ** 2)
    second = (n**2 * S1 - n * S2 + 3 * S0**2) / ((n**2 - 1) * S0**2)
    return _normal(float(value[0]), expected, float(np.sqrt(second - expected**2)))


def quantiles(
    found: Scaled, by: Any = None, at: Sequence[float] = QUANTILES
) -> pd.DataFrame:
    """Whether quantiles of the residuals stay where they belong along a predictor.

    The predictor is cut into ten parts of as many rows; the statistic is the sum of
    the squared standardised shares of residuals below a quantile.

    Args:
        found: simulated residuals.
        by: a variable of the model or numbers; default the predicted mean.
        at: quantiles between 0 and 1.

    Returns:
        Frame by quantile, and "all" of them: observed, expected, p_value, method.
    """
    try:
        levels = np.atleast_1d(np.asarray(at, float)).ravel()
    except (TypeError, ValueError, OverflowError) as error:
        raise NotApplicableError(f"at={at!r}: quantiles lie between 0 and 1") from error
    if not len(levels) or not ((levels > 0) & (levels < 1)).all():
        raise NotApplicableError(f"at={at!r}: quantiles lie between 0 and 1")
    x = found.predicted[found.used] if by is None else _numbers(found, by, "by")
    order = np.argsort(x, kind="stable")
    _, first = np.unique(x[order], return_index=True)  # equal values in one part
    ends = np.linspace(0, len(x), min(BINS, len(first)) + 1)[1:-1]
    cuts = np.unique(first[np.searchsorted(first, ends).clip(max=len(first) - 1)])
    values = found.scaled[found.used][None] if found.draws is None else found.draws
    parts = [p for p in np.split(order, cuts) if len(p)]
    rows, total = {}, 0.0
    for level in levels:
        below = values < level
        share = np.stack([below[:, part].mean(axis=1) for part in parts], axis=1)
        sizes = np.array([len(part) for part in parts])
        value = np.sum(sizes * (share - level) ** 2, axis=1) / (level * (1 - level))
        total = total + value
        rows[f"{level:g}"] = _upper_or(found, value, len(parts))
    if len(levels) > 1 and found.draws is not None:
        rows["all"] = upper(np.asarray(total))
    return tabulated(rows)


def categorical(found: Scaled, groups: Any) -> pd.DataFrame:
    """Whether residuals are uniform in each level of a factor, and spread alike.

    Args:
        found: simulated residuals.
        groups: a variable of the model, a grouping factor, or labels, a row each.

    Returns:
        Frame of two tests: "uniformity", the largest distance of a level's residuals
        from the uniform distribution times the root of their number; "homogeneity",
        Levene's statistic. ``by(groups)`` has the levels one by one.
    """
    import pandas as pd
    from scipy import stats

    _, labels = found.labels(groups)
    codes = pd.factorize(np.asarray(labels)[found.used])[0]
    parts = [np.flatnonzero(codes == k) for k in range(codes.max() + 1)]
    if len(parts) < 2:
        raise NotApplicableError("categorical() compares levels; there is one alone")
    if found.draws is None:
        own = found.scaled[found.used]
        p = [stats.kstest(own[part], "uniform") for part in parts]
        worst = min(p, key=lambda t: t.pvalue)
        adjusted = min(1.0, len(parts) * float(worst.pvalue))
        several = [own[part] for part in parts if len(part) > 1]
        levene = stats.levene(*several) if len(several) > 1 else None
        rows = {"uniformity": Test(worst.statistic, np.nan, adjusted, "asymptotic")}
        if levene is not None:
            rows["homogeneity"] = Test(
                levene.statistic, 1.0, levene.pvalue, "asymptotic"
            )
        return tabulated(rows)
    values = found.draws
    largest = np.max(
        [np.sqrt(len(part)) * distances(values[:, part]) for part in parts], axis=0
    )
    return tabulated(
        {"uniformity": upper(largest), "homogeneity": upper(_levene(values, parts))}
    )


def _levene(values: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """(d,) Brown and Forsythe's statistic: spreads about the medians of levels."""
    away = np.empty_like(values)
    for part in parts:
        middle = np.median(values[:, part], axis=1, keepdims=True)
        away[:, part] = np.abs(values[:, part] - middle)
    whole = away.mean(axis=1)
    between, within = np.zeros(len(values)), np.zeros(len(values))
    for part in parts:
        own = away[:, part].mean(axis=1)
        between += len(part) * (own - whole) ** 2
        within += np.sum((away[:, part] - own[:, None]) ** 2, axis=1)
    k, n = len(parts), values.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(between / within * (n - k) / (k - 1))


def _numbers(found: Scaled, given: Any, name: str) -> np.ndarray:
    """Numbers of the rows that count."""
    _, values = found.labels(given)
    try:
        out = np.asarray(values, float)[found.used]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name}= must be numbers, a row each ({error})") from error
    if not np.isfinite(out).all():
        bad = int((~np.isfinite(out)).sum())
        raise DataError(f"{name}= has {bad} values that are missing or not finite")
    return out


def _at_places(
    z: np.ndarray, *where: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores of rows at one place become their mean; the places."""
    places, index = np.unique(np.stack(where, axis=1), axis=0, return_inverse=True)
    if len(places) == z.shape[1]:
        return z, list(where)
    counts = np.bincount(index.ravel(), minlength=len(places))
    sums = np.stack([np.bincount(index.ravel(), row, len(places)) for row in z])
    return sums / counts, list(places.T)


def _upper_or(found: Scaled, value: np.ndarray, df: int) -> Test:
    if found.draws is not None:
        return upper(value)
    from scipy import special

    p = float(special.chdtrc(df, value[0]))
    return Test(float(value[0]), float(df), p, "asymptotic")


def _normal(value: float, expected: float, sd: float) -> Test:
    from scipy import special

    p = 2 * float(special.ndtr(-abs(value - expected) / sd))
    return Test(value, expected, p, "asymptotic")
