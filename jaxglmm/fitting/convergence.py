"""What a user should know about a fit, in words: the fact, the numbers, what to try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _errors, _status
from jaxglmm.fitting import flatness
from jaxglmm.fitting.components import sd_and_correlation
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.residual_coordinates import at_ends
from jaxglmm.formatting import numbers
from jaxglmm.formula import notices
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.model import covariances
from jaxglmm.structure.factors import ColumnMaps

NEAR_ZERO = 1e-4  # of the residual sd, for a column scaled to mean square one
NEAR_ONE = 1 - 1e-6
MOST_NAMED = 6  # coefficients that a note lists
OF_THE_FIT = (
    _errors.ConvergenceWarning,
    _errors.SingularFitWarning,
    _errors.ScaleWarning,
)
FEW_DIGITS = 1e-9  # residual variance over that about the fixed effects
DIGITS = 2e-14  # relative error of sigma there, times that share
LOST = 1e-12  # variance over squared mean: above rounding, and that of what is FAR
FAR = 1e10  # standard deviations from zero: results have less than six digits


@dataclass(frozen=True)
class Note:
    """One thing to know: the warning it is, and its text.

    of_fit: whether it is due when the fit is made (the formula has warned of the data).
    """

    category: type[Warning]
    text: str
    of_fit: bool = False


def status_text(estimates: Estimates) -> str:
    """How the optimiser ended."""
    return _status.message(
        estimates.status, steps=estimates.n_iter, decrement=estimates.decrement
    )


def notes(design: Design, estimates: Estimates) -> tuple[Note, ...]:
    """Everything worth a warning, in the order in which it happened."""
    found = []
    if design.n_missing:
        found.append(Note(_errors.MissingRowsWarning, _missing(design)))
    if design.dropped_columns:
        found.append(Note(_errors.RankDeficientWarning, _dropped(design)))
    if not estimates.converged:
        text = status_text(estimates)
        found.append(Note(_errors.ConvergenceWarning, f"Not converged: {text}."))
    if estimates.singular:
        found.append(Note(_errors.SingularFitWarning, _singular(design, estimates)))
    flat = flatness.texts(design, estimates)
    found += [Note(_errors.RankDeficientWarning, text, True) for text in flat]
    found += [Note(_errors.ScaleWarning, text) for text in _few_digits(estimates)]
    found += [Note(_errors.ScaleWarning, text) for text in _far(design)]
    return tuple(found)


def warn(design: Design, estimates: Estimates, far: bool = False) -> None:
    """Warn, once each, of what the fit found (the formula has warned of the data).

    far: whether a covariate may lie too far from zero.
    """
    plain = estimates.converged and not estimates.singular
    exact = estimates.share > FEW_DIGITS
    if plain and exact and not far and not flatness.possible(design):
        return
    for note in notes(design, estimates):
        if note.of_fit or note.category in OF_THE_FIT:
            notices.warn(note.text, note.category)


def monte_carlo(design: Design, facts: dict[str, Any]) -> tuple[str, ...]:
    """What probes of large crossed factors leave unknown; nothing of an exact fit."""
    known = facts.get("monte_carlo")
    if known is None:
        return ()
    names = [f"sd_{name}|{t.factor}" for t in design.terms for name in t.names]
    each = [*zip(names, known["sd"], strict=True)]
    each += zip(design.x_names, known.get("coef", ()), strict=False)
    said = ", ".join(f"{name} {numbers.general(x, 2)}" for name, x in each)
    more = 4 * known["probes"]
    if "coef" in known:  # of a generalised model
        how = f"method=jg.Laplace(probes={more})."
    else:
        how = f"method=jg.REML(probes={more}), jg.ML(probes={more}). "
        how += "Degrees of freedom are n - p."
    return (
        f"Log-determinants are by {known['probes']} fixed random vectors. Monte Carlo "
        f"errors: {said}; criterion {numbers.general(known['criterion'], 2)}. More "
        f"probes halve them: {how}",
    )


def _missing(design: Design) -> str:
    total = design.n + design.n_missing
    return (
        f"{design.n_missing} of {total} rows have a missing value in a variable of the "
        f"model and were dropped; {design.n_counted} rows are used."
    )


def _dropped(design: Design) -> str:
    names = ", ".join(design.dropped_columns)
    text = (
        f"The fixed-effects design is rank deficient: dropped {names}, which the other "
        "columns determine already."
    )
    missing = design.null_space
    if missing is None:
        return text
    blind = missing.inestimable(missing.full(np.eye(design.p)))
    moved = [name for name, b in zip(design.x_names, blind, strict=True) if b]
    if not moved:
        return text
    which = ", ".join(moved[:MOST_NAMED]) + ", ..." * (len(moved) > MOST_NAMED)
    return (
        f"{text} Not estimable, since other numbers stand there if others are dropped: "
        f"{which}."
    )


def _few_digits(estimates: Estimates) -> list[str]:
    """How exact a residual is that is tiny beside the effects, in words."""
    if not (estimates.converged and 0 < estimates.share < FEW_DIGITS):
        return []
    ratio, error = np.sqrt(estimates.share), min(DIGITS / estimates.share, 1.0)
    return [
        f"The residual standard deviation is {ratio:.0e} of that about the fixed "
        f"effects: of so small a rest the sums of squares keep few digits, and sigma "
        f"and what follows from it are good to about {100 * error:.1g} %. Is the "
        "response a rounded value of its level?"
    ]


def may_be_far(R: np.ndarray) -> bool:
    """Whether some column lies far from zero, from R of [1, X] = QR."""
    if len(R) < 2:
        return False
    return bool((np.abs(R[0, 1:]) > 0.1 * FAR * np.abs(np.diagonal(R)[1:])).any())


def _far(design: Design) -> list[str]:
    """Covariates beside an intercept that lie too far from zero, in words."""
    if not design.has_rows:  # moved to their means before they were squared
        return []
    counted = design.counted
    places = [("", design.x_names, design.X[counted])]
    places += [
        (f" by {t.label}", t.names, t.values[counted])
        for t in design.terms
        if covariances.of(t).maps is ColumnMaps.ANY
    ]
    found = {}
    for where, names, values in places:
        near_constant = _near_constant(values)
        if len(near_constant) < 2:  # the intercept alone
            continue
        values = values[:, near_constant]
        if not (np.ptp(values, axis=0) == 0).any():
            continue
        sd, mean = np.std(values, axis=0), np.abs(np.mean(values, axis=0))
        for j, s, m in zip(near_constant, sd, mean, strict=True):
            name = names[j]
            if m > FAR * s > 0 and name not in found:
                found[name] = (
                    f"{name}{where} lies {m / s:.0e} standard deviations from zero: "
                    "what is said of it and of the intercept has lost digits. "
                    "Subtract its mean, or its first value, before the fit."
                )
    return list(found.values())


def _near_constant(values: np.ndarray) -> np.ndarray:
    """Columns of (n, p) whose variance is lost in the rounding of their squares.

    All that are constant or ``FAR`` are among them; it takes two passes over the rows.
    """
    n = len(values)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not judged is kept
        squared = np.square(np.ones(n) @ values / n)
        variance = np.einsum("ij,ij->j", values, values) / n - squared
        return np.flatnonzero(~(variance > LOST * squared))


def _singular(design: Design, estimates: Estimates) -> str:
    unit = _unit(design) if estimates.vcov is not None else 1.0
    facts = [
        fact
        for term, lam in zip(design.terms, estimates.lam, strict=True)
        for fact in _degenerate(term.mean_square(design.counted), term, lam, unit)
    ]
    if design.residual is not None:
        ends = at_ends(design, estimates.phi)
        if ends and not facts:
            return (
                f"{'; '.join(ends)}. A structure with fewer parameters fits as well, "
                "such as cs where rows are alike at any distance and independent rows "
                "where they are not correlated; likelihood and predictions hold"
            )
        facts += ends
    what = "; ".join(facts) if facts else "a covariance matrix has not full rank"
    return (
        f"Singular fit: {what}. The data do not support all of the random effects: "
        "drop a term, write (x || g) for (x | g), or keep the model as it is: the "
        "estimates are the right optimum."
    )


def _unit(design: Design) -> float:
    """The root of the mean weight."""
    if design.weights is None:
        return 1.0
    root = np.sqrt(design.weights[design.counted])
    most = float(root.max())
    return most * float(np.sqrt(np.mean((root / most) ** 2)))


def _degenerate(
    square: np.ndarray, term: RandomTerm, lam: np.ndarray, unit: float
) -> list[str]:
    """The zero variances and perfect correlations of a term, in words.

    square: (q,) mean squares of its columns in rows that count; unit: of the weights:
    sigma / unit is the residual sd of a typical row.
    """
    own = covariances.of(term)
    if own.has_own:
        return _ends(term, lam)
    size = unit * np.sqrt(square)
    scaled = lam * np.where(size > 0, size, 1.0)[:, None]
    sd, corr = sd_and_correlation(scaled @ scaled.T)
    zero = sd < NEAR_ZERO
    facts = [
        f"the standard deviation of {name} by {term.label} is estimated as 0"
        for name, is_zero in zip(term.names, zero, strict=True)
        if is_zero
    ]
    rows, columns = np.nonzero(np.tril(np.abs(corr) > NEAR_ONE, -1))
    facts += [
        f"the correlation of {term.names[j]} and {term.names[i]} by {term.label} is "
        f"estimated as {np.sign(corr[i, j]):+.0f}"
        for i, j in zip(rows, columns, strict=True)
        if not (zero[i] or zero[j])
    ]
    small = np.abs(np.diagonal(scaled)) < NEAR_ZERO
    if not facts and small.any():
        facts.append(
            f"the {len(sd)} by {len(sd)} covariance matrix of {term.label} has rank "
            f"{len(sd) - int(small.sum())}"
        )
    return facts


def _ends(term: RandomTerm, lam: np.ndarray) -> list[str]:
    """The parameters of a structure that are at an end of their range, in words."""
    own = covariances.of(term)
    sds, others = own.parameters(term.names)
    sd, values = own.natural(lam @ lam.T)
    facts = [
        f"the standard deviation of {name} by {term.label} is estimated as 0"
        for (name,), x in zip(sds, sd, strict=True)
        if x < NEAR_ZERO
    ]
    common = own.common(values) if (sd > NEAR_ZERO).all() else None
    if common is not None:
        facts.append(
            f"the range of {'.'.join(others[0][1])} by {term.label} is estimated as "
            f"{values[0]:.3g}, "
            f"at which all correlations are {common:.0f}: the end of its range"
        )
    return facts + [
        f"the correlation of {'.'.join(words)} by {term.label} is estimated as "
        f"{x:+.3g}, the end of its range"
        for (kind, words), x in zip(others, values, strict=True)
        if kind == "cor" and (sd > NEAR_ZERO).all() and own.is_end(float(x))
    ]
