"""The dense twin of a fit at given relative factors: n by n matrices, nothing clever.

Makes a ``Fit`` from a design without the engine, so that the tests of results depend on
algebra that can be read off a textbook.
"""

import numpy as np
from doors import Estimates, design_from_formula

from jaxglmm import Fit


def dense_z(design):
    """Z (n, sum J q) and, a term, the (J, q) positions of its columns."""
    positions, start = [], 0
    for term in design.terms:
        size = term.n_levels * len(term.names)
        positions.append(start + np.arange(size).reshape(term.n_levels, -1))
        start += size
    Z = np.zeros((design.n, start))
    for term, where in zip(design.terms, positions, strict=True):
        Z[np.arange(design.n)[:, None], where[term.codes]] = term.values
    return Z, positions


def relative_covariance(design, lam):
    """Lambda Lambda' of all random effects."""
    Z, positions = dense_z(design)
    G = np.zeros((Z.shape[1], Z.shape[1]))
    for factor, where in zip(lam, positions, strict=True):
        for rows in where:
            G[np.ix_(rows, rows)] = factor @ factor.T
    return G


def estimates(design, lam, reml=True):
    """Generalised least squares at lam; the criterion from its definition."""
    n, p, X = design.n, design.p, design.X
    Z, positions = dense_z(design)
    G = relative_covariance(design, lam)
    w = np.ones(n) if design.weights is None else design.weights
    V = Z @ G @ Z.T + np.diag(1 / w)
    y = design.y - (0 if design.offset is None else design.offset)
    precision = np.linalg.inv(V)
    information = X.T @ precision @ X
    beta = np.linalg.solve(information, X.T @ precision @ y)
    r = precision @ (y - X @ beta)
    df = n - p if reml else n
    s2 = float((y - X @ beta) @ r) / df
    criterion = df * np.log(2 * np.pi * s2) + np.linalg.slogdet(V)[1] + df
    criterion += np.linalg.slogdet(information)[1] if reml else 0.0
    b = G @ Z.T @ r
    return Estimates(
        beta=beta,
        vcov=s2 * np.linalg.inv(information),
        sigma=float(np.sqrt(s2)),
        lam=tuple(lam),
        theta=np.concatenate(
            [_free(t, f) for t, f in zip(design.terms, lam, strict=True)]
        ),
        b=tuple(b[where] for where in positions),
        criterion=float(criterion),
        reml=reml,
        converged=True,
        singular=any((np.diag(f) < 1e-6).any() for f in lam),
        status=0,
        n_iter=5,
        decrement=1e-12,
    )


def _free(term, factor):
    if term.covariance == "diag":
        return np.diag(factor)
    rows, columns = np.triu_indices(len(factor))
    return factor[columns, rows]


def make(formula, data, lam, reml=True, df=None, **options):
    """A fit at lam; ``df`` stands in for Satterthwaite's, None means n - p."""
    design = design_from_formula(formula, data, **options)
    lam = [np.atleast_2d(np.asarray(f, float)) for f in lam]
    fit = Fit(
        design, estimates(design, lam, reml), compute_satterthwaite=df is not None
    )
    if df is not None:
        fit.__dict__["_satterthwaite"] = np.asarray(df, float)
    return fit


def joint_covariance(design, lam, sigma):
    """Covariance of (beta hat, b hat - b) by Henderson's equations; positions of b.

    A singular Lambda is handled by working with u.
    """
    Z, positions = dense_z(design)
    root = np.zeros((Z.shape[1], Z.shape[1]))
    for factor, where in zip(lam, positions, strict=True):
        for rows in where:
            root[np.ix_(rows, rows)] = factor
    p = design.p
    w = np.ones(design.n) if design.weights is None else design.weights
    T = np.column_stack([design.X, Z @ root])
    C = (T * w[:, None]).T @ T
    C[p:, p:] += np.eye(Z.shape[1])
    back = np.eye(p + Z.shape[1])
    back[p:, p:] = root
    return sigma**2 * back @ np.linalg.inv(C) @ back.T, [p + w for w in positions]
