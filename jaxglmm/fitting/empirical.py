"""Covariances of the fixed effects from the residuals of subjects.

With A = Cov(beta) by the model and, of subject i, e the residuals and H = X A X'V^-1,

    empirical               A (sum X'V^-1 e e'V^-1 X) A                 (CR0)
    empirical-bias-reduced  e replaced by (I - H)^(-1/2) e              (CR2)
    empirical-jackknife     e replaced by (I - H)^-1 e, times (m - 1) / m   (CR3)

(Liang and Zeger 1986; Bell and McCaffrey 2002; Mancl and DeRouen 2001), the root that
is the symmetric one of V^(-1/2)(I - H)V^(1/2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.integrate import exact_blocks
from jaxglmm.runtime.host import on_host


def covariance(fit: Any, kind: str) -> np.ndarray:
    """(p, p) in the user's coordinates; blocks of rows are the subjects."""
    engine = fit.engine
    problem, theta = engine.problem, engine.theta(fit.estimates)
    LQ = np.asarray(fit.curvature.at.LQ)
    p = problem.p
    half = np.linalg.solve(LQ, np.eye(p))
    middle, count = np.zeros((p, p)), 0
    beta = np.asarray(fit.curvature.at.beta)
    for a, stack in zip(engine.arrangements, problem.stacks, strict=True):
        with on_host():
            P, _ = exact_blocks.precision(stack, problem.tables(theta, stack)[0])
        rows = a.padded(engine.rows)
        root = _root(np.asarray(P))[a.pattern]  # P = root root
        whitened = root @ rows
        X, e = whitened[..., :p] @ half.T, whitened[..., p] - whitened[..., :p] @ beta
        values, vectors = np.linalg.eigh(np.eye(X.shape[1]) - X @ np.swapaxes(X, 1, 2))
        power = {"empirical": 0.0, "empirical-bias-reduced": -0.5}.get(kind, -1.0)
        safe = np.where(values > 1e-10, values, np.inf if power else 1.0)
        moved = vectors @ (safe**power * np.einsum("nts,nt->ns", vectors, e))[..., None]
        score = np.einsum("ntc,nt->nc", X, moved[..., 0])
        middle += score.T @ score
        count += len(rows)
    if kind == "empirical-jackknife":
        middle *= (count - 1) / count
    fixed = engine.fixed
    back = fixed.scale * fixed.R_inverse @ half.T
    return back @ middle @ back.T


def _root(P: np.ndarray) -> np.ndarray:
    """Symmetric roots of many matrices."""
    values, vectors = np.linalg.eigh(P)
    values = np.sqrt(np.maximum(values, 0.0))
    return (vectors * values[:, None]) @ np.swapaxes(vectors, 1, 2)
