"""The dense twin: criteria of linear fits from V = I + Z Lambda Lambda'Z'."""

from __future__ import annotations

import numpy as np


def matrices(fit):
    """X, Z, and the relative factor Lambda of all effects, from names and codes."""
    design = fit.design
    columns, blocks = [], []
    for term, lam in zip(design.terms, fit.estimates.lam, strict=True):
        J, q = term.n_levels, len(term.names)
        values = np.asarray(term.values).reshape(design.n, -1)
        assert values.shape == (design.n, q)
        Z = np.zeros((design.n, J * q))
        for i in range(q):
            Z[np.arange(design.n), term.codes * q + i] = values[:, i]
        columns.append(Z)
        blocks.append(np.kron(np.eye(J), lam))
    L = np.zeros((sum(len(b) for b in blocks),) * 2)
    k = 0
    for block in blocks:
        L[k : k + len(block), k : k + len(block)] = block
        k += len(block)
    return design.X, np.concatenate(columns, axis=1), L


def criterion(fit, reml: bool) -> float:
    """-2 log-likelihood, beta and sigma at their best for the fit's Lambda."""
    X, Z, L = matrices(fit)
    design = fit.design
    w = np.ones(design.n) if design.weights is None else np.asarray(design.weights)
    offset = 0.0 if design.offset is None else design.offset
    y = design.y - offset
    used = w > 0
    X, Z, y, w = X[used], Z[used], y[used], w[used]
    n, p = X.shape
    V = np.diag(1 / w) + Z @ L @ L.T @ Z.T
    C = np.linalg.cholesky(V)
    Xv, yv = np.linalg.solve(C, X), np.linalg.solve(C, y)
    beta, *_ = np.linalg.lstsq(Xv, yv, rcond=None)
    rss = float(np.sum((yv - Xv @ beta) ** 2))
    log_det = 2 * np.sum(np.log(np.diagonal(C)))
    m = n - p if reml else n
    out = log_det + m * (1 + np.log(2 * np.pi * rss / m))
    if reml:
        # R leaves X'X out, so a change of units of X moves its criterion
        out += np.linalg.slogdet(Xv.T @ Xv)[1]
    return float(out)
