"""Linear combinations of the coefficients of many models, with their errors and tests.

Tables of many models keep the standard error of every coefficient and no covariances.
A combination L beta is a coefficient of the same model in other coordinates, X A^-1
with L among the rows of A: the models are fitted again with such columns, as many times
as it takes for all rows of L to be coefficients, and standard errors and degrees of
freedom are those of any fit, whatever engine finds them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm.formula.design import Design
from jaxglmm.many import plan as engines
from jaxglmm.many import scheduler
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.columns import PENDING
from jaxglmm.many.record import FittedModels

DEPENDENT = 1e-8  # of a row, relative to its length, what others leave of it


@dataclass(frozen=True)
class Combinations:
    """L beta of D models: estimate, se, df, p_values (D, r), sigma (D,)."""

    estimate: np.ndarray
    se: np.ndarray
    df: np.ndarray
    p_values: np.ndarray
    sigma: np.ndarray


def combinations(
    source: ModelSource, L: np.ndarray, wanted: np.ndarray, bar: Any
) -> Combinations:
    """Fit ``source`` in coordinates that have the rows of L (r, p).

    Args:
        source: the data sets and their model, of one linear predictor.
        L: (r, p) combinations of the columns of its design; a row of zeros is zero.
        wanted: (D,) which data sets; the others are NaN.
        bar: progress, of ``len(wanted)`` for each of ``rounds(L)``.
    """
    D, r = len(wanted), len(L)
    out = {name: np.full((D, r), np.nan) for name in ("estimate", "se", "df", "p")}
    sigma = np.full(D, np.nan)
    still = ~L.any(axis=1)
    for name, value in (("estimate", 0.0), ("se", 0.0)):
        out[name][np.ix_(wanted, still)] = value
    for own in rounds(L):
        found = _fitted(source, _coordinates(L[own]), wanted, bar)
        good = wanted & found.converged
        for name, values in (
            ("estimate", found.coefficients),
            ("se", found.se),
            ("df", found.df),
            ("p", found.p_values),
        ):
            assert values is not None
            out[name][np.ix_(good, own)] = values[good, : len(own)]
        sigma[good] = found.sigma[good]
    return Combinations(out["estimate"], out["se"], out["df"], out["p"], sigma)


def rounds(L: np.ndarray) -> list[np.ndarray]:
    """Positions of independent rows, so few sets that each row is in one."""
    left = np.flatnonzero(L.any(axis=1)).tolist()
    out = []
    while left:
        basis = np.zeros((0, L.shape[1]))
        own = []
        for i in left:
            row = L[i] / np.linalg.norm(L[i])
            rest = row - basis.T @ (basis @ row)
            rest = rest - basis.T @ (basis @ rest)  # twice is enough
            size = np.linalg.norm(rest)
            if size > DEPENDENT:
                basis = np.vstack([basis, rest / size])
                own.append(i)
        out.append(np.array(own))
        left = [i for i in left if i not in set(own)]
    return out


def _coordinates(rows: np.ndarray) -> np.ndarray:
    """(p, p) A with these rows (k, p) first, the others orthonormal and across them."""
    k = len(rows)
    complete = np.linalg.qr(rows.T, mode="complete")[0]
    return np.vstack([rows, complete[:, k:].T])


def _fitted(
    source: ModelSource, A: np.ndarray, wanted: np.ndarray, bar: Any
) -> FittedModels:
    design = in_coordinates(source.design, A)
    moved = replace(source, design=design, satterthwaite=True)
    plan = engines.plan(moved, "all")
    table = np.full((len(plan), plan.columns.width), np.nan)
    table[:, -1] = PENDING
    engines.left_out(table, moved)
    table[~wanted & (table[:, -1] == PENDING), -1] = _status.NOT_FINITE
    scheduler.run(table, plan, bar)
    return FittedModels.from_table(table, plan.columns)


def in_coordinates(design: Design, A: np.ndarray) -> Design:
    """The design with X A^-1, whose coefficients are A beta."""
    X = np.linalg.solve(A.T, design.X.T).T
    names = tuple(f"combination {k}" for k in range(len(A)))
    return replace(
        design, X=np.ascontiguousarray(X), x_names=names, fixed_terms=(), recipe=None
    )
