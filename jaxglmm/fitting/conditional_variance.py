"""Covariances of the random effects, and of predictions that use them.

lme4's conditional variances are given the parameters; ``with_beta`` adds what the
estimation of beta contributes. Both given theta.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from jaxglmm.estimate import information
from jaxglmm.estimate.mode_tangents import mode_tangents
from jaxglmm.fitting import random_effects as effects
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.formula.design import Design, NewRows, RandomTerm
from jaxglmm.integrate.working_model import beta_information
from jaxglmm.model.linear_problem import Problem
from jaxglmm.runtime.precision import double_precision

AT_ONCE = 4_000_000  # numbers in one batch of rows


class Neighboured(Protocol):
    """A fit with a Gaussian model: its own, or the one next to its mode."""

    design: Design

    @property
    def estimates(self) -> Estimates:
        """In the user's coordinates."""
        ...

    @property
    def engine(self) -> Any:
        """With factors, and R of X = X~ R."""
        ...

    def working(self) -> tuple[Problem, np.ndarray]:
        """The Gaussian problem in internal coordinates, and theta (m,)."""
        ...

    def coefficient_covariance(self) -> np.ndarray:
        """(p, p)."""
        ...

    def internal(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """psi (k,) and the mode, of generalised models."""
        ...

    @property
    def parameter_covariance(self) -> np.ndarray:
        """(k, k) of the internal parameters; of generalised models."""
        ...


def conditional_covariance(
    fit: Neighboured, with_beta: bool = False
) -> tuple[np.ndarray, ...]:
    """(J, q, q) covariances of the effects of each level, a factor (terms joined).

    Factors in the order in which the design names them.
    """
    engine = fit.engine
    found = _conditional(fit)
    Q = _inverse_Q(fit)
    out = {}
    for factor, D, K in zip(engine.factors, found.D, found.K, strict=True):
        J = factor.n_levels
        cov = np.moveaxis(np.asarray(D)[..., :J], -1, 0)
        if with_beta:
            k = np.moveaxis(np.asarray(K)[..., :J], -1, 0)
            cov = cov + k @ Q @ np.swapaxes(k, 1, 2)
        back = fit.estimates.sigma * factor.T_inverse
        out[factor.name] = back @ cov @ back.T
    return tuple(out[name] for name in effects.by_factor(fit.design.terms))


@double_precision
def _conditional(fit: Neighboured) -> information.Conditional:
    return information.conditional(*fit.working())


def _inverse_Q(fit: Neighboured) -> np.ndarray:
    """Internal Q^-1 from the covariance of beta."""
    if getattr(fit.engine, "located", False):  # one more column than the user's
        p = fit.engine.base.p
        return fit.parameter_covariance[:p, :p]
    R = fit.engine.R / fit.estimates.sigma
    return R @ fit.coefficient_covariance() @ R.T


@double_precision
def prediction_variance(
    fit: Neighboured, new: NewRows, re: str = "conditional"
) -> np.ndarray:
    """Variance of x'beta + z'b around its prediction, (n_new,), given theta.

    With a = x - K'z (K the regression of the modes on beta), it is
    sigma^2 z'Lambda M^-1 Lambda'z + a'Cov(beta)a. Levels that were not in the data have
    their whole prior variance.
    """
    sigma = fit.estimates.sigma
    X = new.X @ (sigma * fit.engine.R_inverse)
    if re != "conditional" or not new.terms:
        return _quadratic(X, _inverse_Q(fit))
    square, known = _given_theta(fit, new)
    Q = _inverse_Q(fit)
    return square + _quadratic(X - known, Q) + _prior(fit, new)


@double_precision
def leverage(fit: Neighboured, weights: np.ndarray) -> np.ndarray:
    """Variance of x'beta + z'b around its prediction in the fit's own rows, (n,).

    Given all variance parameters, as the hat matrix has it: of beta there is the
    inverse of X'V^-1X then, whatever the covariance that the fit's tests go by.
    weights: (n,) inverse variances of the rows, those of the link among them.
    """
    design = fit.design
    sigma = fit.estimates.sigma
    X = design.X @ (sigma * fit.engine.R_inverse)
    if not design.terms:
        information = (X.T * weights) @ X / sigma**2
        return _quadratic(X, np.linalg.inv(information))
    Q = np.linalg.inv(np.asarray(beta_information(*fit.working())))
    rows = NewRows(design.X, np.zeros(design.n), design.terms)
    square, known = _given_theta(fit, rows)
    return square + _quadratic(X - known, Q)


@double_precision
def effects_variance(fit: Neighboured, new: NewRows) -> np.ndarray:
    """Variance of z'b around its mode given all parameters, (n_new,)."""
    return _given_theta(fit, new)[0] + _prior(fit, new)


@double_precision
def effects_tangents(fit: Neighboured, new: NewRows) -> np.ndarray:
    """Derivatives of z'b in psi, (n, k): the modes move with the parameters."""
    moved = mode_tangents(fit.engine.base, *fit.internal())
    out = np.zeros(0)
    for factor, tangents in zip(fit.engine.factors, moved, strict=True):
        terms = [new.terms[term] for term, _, _ in factor.spans]
        z = np.concatenate([t.values for t in terms], axis=1) @ factor.T_inverse
        codes = terms[0].codes
        z = np.where(codes[:, None] < 0, 0.0, z)
        b = np.asarray(tangents)[:, :, 0, np.maximum(codes, 0)]
        own = np.einsum("kqn,nq->nk", b, z)
        out = own if not out.size else out + own
    return out


@double_precision
def regression_on_modes(fit: Neighboured) -> np.ndarray:
    """Z b of the columns of X, each as a response without fixed effects, (n, p)."""
    design = fit.design
    if not design.terms:
        return np.zeros_like(design.X)
    rows = NewRows(design.X, np.zeros(design.n), design.terms)
    return _given_theta(fit, rows)[1] @ (fit.engine.R / fit.estimates.sigma)


def _given_theta(fit: Neighboured, new: NewRows) -> tuple[np.ndarray, np.ndarray]:
    one = len(fit.engine.factors) == 1
    return (_one_factor if one else _crossed)(fit, new)


def _quadratic(a: np.ndarray, Q: np.ndarray) -> np.ndarray:
    return np.einsum("ij,jk,ik->i", a, Q, a)


def _rows(fit: Neighboured, new: NewRows) -> list[tuple[np.ndarray, np.ndarray]]:
    """Codes (n,), and sigma times internal values (n, q); zeros where unseen."""
    out = []
    for factor in fit.engine.factors:
        terms = [new.terms[term] for term, _, _ in factor.spans]
        back = fit.estimates.sigma * factor.T_inverse
        values = np.concatenate([t.values for t in terms], axis=1) @ back
        codes = terms[0].codes
        out.append((np.maximum(codes, 0), np.where(codes[:, None] < 0, 0.0, values)))
    return out


def _one_factor(fit: Neighboured, new: NewRows) -> tuple[np.ndarray, np.ndarray]:
    found = _conditional(fit)
    ((codes, z),) = _rows(fit, new)
    D, K = np.asarray(found.D[0]), np.asarray(found.K[0])
    square = np.einsum("ni,ijn,nj->n", z, D[..., codes], z)
    return square, np.einsum("ni,ipn->np", z, K[..., codes])


def _crossed(fit: Neighboured, new: NewRows) -> tuple[np.ndarray, np.ndarray]:
    """Rows in batches, each a vector in the space of all random effects."""
    problem, theta = fit.working()
    rows = _rows(fit, new)
    n = len(new.X)
    shapes = [(b.shape[0], b.shape[-1]) for b in problem.B]
    batch = int(max(1, min(n, 256, AT_ONCE // sum(q * J for q, J in shapes))))
    squares, known = [], []
    for begin in range(0, n, batch):
        here = slice(begin, min(begin + batch, n))
        w = []
        for (codes, z), (q, J) in zip(rows, shapes, strict=True):
            one = np.zeros((q, batch, J))
            k = np.arange(here.stop - here.start)
            one[:, k, codes[here]] = z[here].T
            w.append(one)
        s, x = information.leverages(problem, theta, tuple(w))
        size = here.stop - here.start
        squares.append(np.asarray(s)[:size])
        known.append(np.asarray(x)[:size])
    return np.concatenate(squares), np.concatenate(known)


def _prior(fit: Neighboured, new: NewRows) -> np.ndarray:
    """z'Psi z of the levels that were not in the data, (n_new,)."""
    total = np.zeros(len(new.X))
    for term, lam in zip(new.terms, fit.estimates.lam, strict=True):
        total += _prior_of(term, fit.estimates.sigma * lam)
    return total


def _prior_of(term: RandomTerm, lam: np.ndarray) -> np.ndarray:
    spread = np.sum((term.values @ lam) ** 2, axis=1)
    return np.where(term.codes < 0, spread, 0.0) + term.variance_beyond(lam)
