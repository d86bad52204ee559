"""Variances of which the data say nothing: directions in which the likelihood is flat.

Two cases that a design shows. Fixed effects that hold every level of a factor leave
nothing of its random effects: the restricted likelihood does not depend on their
variance (the likelihood does, and puts it at zero). And two factors that cut the rows
into the same groups share one variance in any proportion.
"""

from __future__ import annotations

import itertools

import numpy as np

from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.formula.structures import SHARED

NOTHING = 1e-10  # share of a column's length outside the span of the fixed effects


def possible(design: Design) -> bool:
    """Whether a closer look is due: coefficients for all levels, or equal factors."""
    if not design.has_rows:
        return False
    levels = {t.factor: design.levels_counted(t) for t in design.terms}
    sizes = list(levels.values())
    return design.p >= min(sizes, default=design.p + 1) or len(set(sizes)) < len(sizes)


def texts(design: Design, estimates: Estimates) -> list[str]:
    """What to know, with numbers."""
    if not design.terms or not possible(design):
        return []
    out = _inside(design, estimates) if estimates.reml else []
    for (i, one), (j, two) in itertools.combinations(enumerate(design.terms), 2):
        if _same(one, two):
            sds = (_sd(estimates, i, 0), _sd(estimates, j, 0))
            out.append(
                f"{one.factor!r} and {two.factor!r} cut the rows into the same "
                f"{one.n_levels} groups: their variances add up to one number that is "
                f"known, and the standard deviations {sds[0]:.4g} and {sds[1]:.4g} are "
                f"one of many ways to share it. Drop (... | {two.factor})."
            )
    return out


def _inside(design: Design, estimates: Estimates) -> list[str]:
    """Columns of random effects that the fixed effects hold level by level."""
    w = design.weights
    root = np.ones(design.n) if w is None else np.sqrt(w)
    Q: np.ndarray | None = None
    out = []
    for k, term in enumerate(design.terms):
        if design.p < design.levels_counted(term):
            continue
        if Q is None:
            Q = np.linalg.qr(design.X * root[:, None])[0]
        held = []
        for i, name in enumerate(term.names):
            column = term.values[:, i] * root
            products = np.zeros((term.n_levels, Q.shape[1]))
            np.add.at(products, term.codes, column[:, None] * Q)
            size = float(column @ column)
            if size - float(np.sum(products**2)) <= NOTHING * size:
                held.append(_nothing(term, name, _sd(estimates, k, i)))
        if term.structure not in SHARED:
            out += held
        elif len(held) == len(term.names):  # one variance, known from any column
            out += held[:1]
    return out


def _nothing(term: RandomTerm, name: str, sd: float) -> str:
    return (
        f"The fixed effects hold each of the {term.n_levels} levels of "
        f"{term.factor!r}: the data say nothing of the variance of {name} by "
        f"{term.label}. Its standard deviation {sd:.4g} is where the search began, and "
        "standard errors and tests depend on it. Drop the random effect, or "
        f"{term.factor!r} from the fixed effects."
    )


def _same(one: RandomTerm, two: RandomTerm) -> bool:
    """Whether two terms differ in the name of their factor alone."""
    if one.factor == two.factor or one.n_levels != two.n_levels:
        return False
    if one.values.shape != two.values.shape or (one.values != two.values).any():
        return False
    pairs = one.codes.astype(np.int64) * two.n_levels + two.codes
    return len(np.unique(pairs)) == one.n_levels


def _sd(estimates: Estimates, term: int, i: int) -> float:
    return float(np.linalg.norm(estimates.sigma * estimates.lam[term][i]))
