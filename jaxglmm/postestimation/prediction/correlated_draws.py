"""Draws of linear models whose residuals are correlated or differ in variance.

The variance parameters are drawn around their estimates by the exact Hessian, on the
scale of the search. Given them, noise is simulated from the model and the coefficients
and effects are what the model makes of the response less that noise: beta and b + b0
have Henderson's covariance exactly (Papandreou and Yuille 2010, Gaussian sampling by
local perturbations), without a joint covariance of all effects being made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm.fitting import held, predictor
from jaxglmm.fitting.blocks import solved, user_parameters
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.linear import pack
from jaxglmm.fitting.residual_parameters import drawn

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_correlated import FittedCorrelated

Drawn = tuple[
    np.ndarray, list[np.ndarray], tuple[np.ndarray, ...], np.ndarray, np.ndarray
]


def correlated(
    fit: FittedCorrelated, n: int, rng: np.random.Generator, root: np.ndarray
) -> Drawn:
    """n draws: beta (n, p), b and Lambda of each term, sigma (n,), phi (n, k).

    root: (m, r) of the covariance of the internal variance parameters.
    """
    theta = fit.engine.theta(fit.estimates)
    moved = theta + rng.standard_normal((n, root.shape[1])) @ root.T
    every = [_one(fit, row, rng) for row in moved]
    beta, b, lam, sigma, phi = zip(*every, strict=True)
    terms = range(len(fit.design.terms))
    return (
        np.array(beta),
        [np.array([x[k] for x in b]) for k in terms],
        tuple(np.array([x[k] for x in lam]) for k in terms),
        np.array(sigma),
        np.array(phi),
    )


def _one(fit: FittedCorrelated, theta: np.ndarray, rng: np.random.Generator):
    """One draw of all at variance parameters ``theta``."""
    engine, design = fit.engine, fit.design
    fixed, root = engine.fixed, engine.root
    phi, sigma, lam = user_parameters(engine, design, theta)
    b = [
        sigma * rng.standard_normal((t.n_levels, len(t.names))) @ x.T
        for t, x in zip(design.terms, lam, strict=True)
    ]
    noise = residuals(fit, phi, sigma, lam, int(rng.integers(2**63)))
    noise = noise + predictor.random_part(design.terms, b)
    rows = engine.rows.copy()
    rows[:, -1] -= root * noise[engine.keep] / fixed.scale
    found = solved(engine, theta, rows)
    X = rows[:, :-1]
    inner = np.linalg.solve(X.T @ found[:, :-1], X.T @ found[:, -1])
    r = root * (found[:, -1] - found[:, :-1] @ inner)
    free, (_, beta) = ~engine.held, held.coefficients(design)
    beta[free] = fixed.beta(inner)
    for term, own, x in zip(design.terms, b, lam, strict=True):
        total = np.zeros_like(own)
        values = term.values[engine.keep] * r[:, None]
        np.add.at(total, term.codes[engine.keep], values)
        own += total @ (x @ x.T) * (sigma**2 / fixed.scale)
    return beta, b, lam, sigma, phi


def residuals(
    fit: FittedCorrelated, phi: np.ndarray, sigma: float, lam: Any, seed: int
) -> np.ndarray:
    """(nobs,) residuals of the fit's rows from the structure at some parameters."""
    design = fit.design
    own = fit.like(design, at(fit, phi, sigma, lam), fit.engine)
    (found,) = drawn(own, 1, seed, "conditional")
    return found if design.offset is None else found - design.offset


def at(fit: FittedCorrelated, phi: np.ndarray, sigma: float, lam: Any) -> Estimates:
    """Variance parameters in the place of the estimates, the others zero."""
    design = fit.design
    nothing = tuple(np.zeros((t.n_levels, len(t.names))) for t in design.terms)
    return replace(
        fit.estimates,
        beta=np.zeros(design.p),
        b=nothing,
        phi=phi,
        sigma=float(sigma),
        lam=tuple(lam),
        theta=pack(design, lam) if len(design.terms) else np.zeros(0),
    )
