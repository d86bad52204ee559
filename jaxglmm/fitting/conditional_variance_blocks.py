"""Conditional covariances of random effects beside correlated residuals.

Given the parameters, the effects b of a level have D = Sigma - Sigma Z'V^-1 Z Sigma,
and K = Sigma Z'V^-1 X says how their modes fall as beta rises.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting import components
from jaxglmm.fitting import random_effects as effects
from jaxglmm.fitting.blocks import solved
from jaxglmm.formula.design import NewRows


def covariances(fit: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Factor -> D (J, q, q) and K (J, q, p) in the user's units, terms joined."""
    design, engine = fit.design, fit.engine
    keep, theta = engine.keep, engine.theta(fit.estimates)
    scale = engine.fixed.scale
    X = design.X[keep] * engine.root[:, None]
    PX = solved(engine, theta, X) / scale**2
    Sigma = components.covariances(fit.estimates)
    out = {}
    for name, terms in effects.by_factor(design.terms).items():
        found = [design.terms[t] for t in terms]
        codes, J = found[0].codes[keep], found[0].n_levels
        z = np.concatenate([t.values[keep] for t in found], axis=1)
        z = z * engine.root[:, None]
        q = z.shape[1]
        S = np.zeros((q, q))
        at = 0
        for t in terms:
            k = len(Sigma[t])
            S[at : at + k, at : at + k] = Sigma[t]
            at += k
        ZPX = np.zeros((J, q, design.p))
        np.add.at(ZPX, codes, z[:, :, None] * PX[:, None, :])
        D = S - S @ _within(engine, theta, z, codes, J) @ S
        own = np.arange(q)  # without a residual rounding is all that is left
        D[:, own, own] = np.maximum(D[:, own, own], 0.0)
        out[name] = (D, S @ ZPX)
    return out


def _within(
    engine: Any, theta: np.ndarray, z: np.ndarray, codes: np.ndarray, J: int
) -> np.ndarray:
    """Z_j'V^-1 Z_j of every level, (J, q, q): a level of each block at a time."""
    q = z.shape[1]
    _, first = np.unique(codes, return_index=True)
    block = engine.block_rows.block
    rank = np.zeros(J, int)
    seen: dict[int, int] = {}
    for row in first.tolist():
        b = int(block[row])
        rank[codes[row]] = seen.get(b, 0)
        seen[b] = rank[codes[row]] + 1
    out = np.zeros((J, q, q))
    for r in range(int(rank.max()) + 1):
        mine = z * (rank[codes] == r)[:, None]
        solution = solved(engine, theta, mine) / engine.fixed.scale**2
        np.add.at(out, codes, mine[:, :, None] * solution[:, None, :])
    return out


def prediction_variance(fit: Any, new: NewRows) -> np.ndarray:
    """Variance of x'beta + z'b around its prediction, (n_new,), given theta."""
    found = covariances(fit)
    if len(found) > 1:
        raise NotApplicableError(
            "standard errors of conditional predictions beside correlated residuals "
            f"are there for one grouping factor; the model has {', '.join(found)}. "
            "re='population' leaves the random effects out"
        )
    ((D, K),) = found.values()
    codes = new.terms[0].codes
    z = np.concatenate([t.values for t in new.terms], axis=1)
    known = np.maximum(codes, 0)
    square = np.einsum("ni,nij,nj->n", z, D[known], z)
    a = new.X - np.einsum("ni,nip->np", z, K[known])
    prior = np.zeros(len(z))
    for term, cov in zip(new.terms, components.covariances(fit.estimates), strict=True):
        prior += np.einsum("ni,ij,nj->n", term.values, cov, term.values)
    unseen = codes < 0
    a = np.where(unseen[:, None], new.X, a)
    V = fit.coefficient_covariance()
    return np.where(unseen, prior, np.maximum(square, 0.0)) + np.einsum(
        "ni,ij,nj->n", a, V, a
    )
