"""What can be wrong with the likelihood of an ordinal model, told after the fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _errors
from jaxglmm.fitting.convergence import Note
from jaxglmm.formatting import numbers

NOTHING = 1e-4  # of all probability together that is left in rows fitted perfectly
MOST_ROWS = 100_000  # up to which a separation is looked for
INVOLVED = 1e-6  # movement along a direction, in standard units, that counts


def notes(fit: Any) -> list[Note]:
    """Coefficients that run off, and random effects that do."""
    found = [_separated(fit), *_running_off(fit)]
    return [note for note in found if note is not None]


def _separated(fit: Any) -> Note | None:
    """A direction along which the likelihood rises for ever."""
    names = runaway(fit)
    if not names:
        return None
    which = "the coefficient of " if len(names) == 1 else "the coefficients of "
    j = fit.design.x_names.index(names[0])
    at = f"{names[0]} = {numbers.general(float(fit.coefficients[j]), 3)}"
    text = (
        f"Separation: the likelihood has no maximum, because {which}"
        f"{', '.join(names[:6])} {'is' if len(names) == 1 else 'are'} infinite: "
        "they tell categories apart without a mistake. The optimiser stopped "
        f"at {at}: that number says where it stopped, and its standard error nothing. "
        "Drop or merge the level, or join categories."
    )
    return Note(_errors.SeparationWarning, text)


def runaway(fit: Any) -> tuple[str, ...]:
    """Names of the coefficients that the likelihood drives to infinity."""
    design = fit.design
    y = design.y.astype(int)
    P = fit.probabilities(fit.latent)
    others = 1 - P[np.arange(len(y)), y]
    used = np.ones(len(y), bool) if design.weights is None else design.weights > 0
    certain = used & (others < NOTHING / len(y))
    if not design.p or (fit.converged and not certain.any()):
        return ()
    X = next(iter(design.parts.values())).X if design.parts else design.X
    if np.sum(used) > MOST_ROWS:
        return ()
    share = _recession(X[used], y[used], fit.cumulative.L)
    return tuple(
        name for name, own in zip(design.x_names, share, strict=False) if own > INVOLVED
    )


def any_runs_off(X: np.ndarray, y: np.ndarray) -> bool:
    """Whether a coefficient of X (n, p) is infinite, y (n,) codes of categories."""
    if not X.shape[1] or len(y) > MOST_ROWS:
        return False
    codes = np.unique(y, return_inverse=True)[1]
    return bool((_recession(X, codes, int(codes.max())) > INVOLVED).any())


def _recession(X: np.ndarray, y: np.ndarray, L: int) -> np.ndarray:
    """How much each column takes part in a direction along which no row loses, (p,).

    Along (b, t) the ends of a row's category move by t_y - x'b and t_{y-1} - x'b. The
    likelihood rises for ever where the first is nowhere negative, the second nowhere
    positive, and one of them is not zero (Albert and Anderson 1984, for thresholds):
    a linear programme finds the most such movement there is.
    """
    from scipy.optimize import linprog

    scale = np.abs(X - X.mean(axis=0)).max(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    Z = (X - X.mean(axis=0)) / scale
    rows = []
    for shift, sign in ((0, 1.0), (1, -1.0)):
        there = np.flatnonzero((y < L) if shift == 0 else (y > 0))
        part = np.zeros((len(there), Z.shape[1] + L))
        part[:, : Z.shape[1]] = -sign * Z[there]
        part[np.arange(len(there)), Z.shape[1] + y[there] - shift] = sign
        rows.append(part)
    A = np.concatenate(rows)
    found = linprog(-A.sum(axis=0), A_ub=-A, b_ub=np.zeros(len(A)), bounds=(-1, 1))
    if not found.success or -found.fun < INVOLVED * len(A):
        return np.zeros(Z.shape[1])
    return np.abs(found.x[: Z.shape[1]])


def _running_off(fit: Any) -> list[Note]:
    """Terms whose effects are so far apart that levels have one category alone."""
    limit = fit.family.link.wide
    if limit is None:
        return []
    out = []
    for term, lam in zip(fit.design.terms, fit.estimates.lam, strict=True):
        spread = np.sum((term.values[fit.design.counted] @ lam) ** 2, axis=1)
        sd = float(np.sqrt(np.mean(spread)))
        if sd <= limit or term.predictor:
            continue
        text = (
            f"The random effects of {term.label} have a standard deviation of "
            f"{numbers.general(sd, 3)} on the scale of the linear predictor, which is "
            "as good as infinite: levels with one category alone do not bound it. "
            "Laplace's approximation is poor here. Drop the term, join levels, or "
            "observe each more often."
        )
        out.append(Note(_errors.SeparationWarning, text))
    return out
