"""statsmodels' log posterior and mean-field bound with their gradients, in NumPy.

Unknowns are packed as (beta, zeta, u): coefficients, log standard deviations, random
effects. Values are statsmodels' own, normalisers of priors and random effects dropped;
``constants`` are what they lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm.compat.statsmodels.bayes.layout import BayesArrays
from jaxglmm.density import smoothed
from jaxglmm.density.smoothed import Expected
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.padding import bucket, pad


def unpack(
    data: BayesArrays, vec: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """beta, zeta, u (views)."""
    p, K = data.X.shape[1], len(data.vcp_p)
    return vec[:p], vec[p : p + K], vec[p + K :]


def predictor(data: BayesArrays, beta: np.ndarray, u: np.ndarray) -> np.ndarray:
    """offset + X beta + Z u."""
    return data.offset + data.X @ beta + data.Z @ u


@double_precision
def row_derivatives(data: BayesArrays, eta: np.ndarray) -> tuple[np.ndarray, ...]:
    """Weighted log densities with all constants, d/deta, -d2/deta2: (n,) each."""
    n = len(eta)
    l, s, w = _row_derivatives(data.family, *_padded(data, eta))
    return tuple(data.weights * np.asarray(x)[:n] for x in (l, s, w))


@double_precision
def row_expectations(
    data: BayesArrays, tm: np.ndarray, tv: np.ndarray, rule: str
) -> Expected:
    """Weighted expectations under N(tm, tv), without ``log_base``: (n,) each."""
    n = len(tm)
    y, tm, phi, trials = _padded(data, tm)
    e = _row_expectations(
        data.family, y, tm, pad(np.asarray(tv, float), len(y)), phi, trials, rule=rule
    )
    return jax.tree.map(lambda x: data.weights * np.asarray(x)[:n], e)


def _padded(data: BayesArrays, eta: np.ndarray) -> tuple[np.ndarray, ...]:
    """y, eta, phi, trials, rows padded so that similar sizes share a program."""
    size = bucket(len(eta))
    y = pad(data.y.astype(float), size)
    y[len(eta) :] = data.family.padding
    trials = pad(data.trials.astype(float), size)
    trials[len(eta) :] = 1.0
    return y, pad(np.asarray(eta, float), size), np.asarray(data.phi, float), trials


@jit
def _row_derivatives(family: Any, y, eta, phi, trials):
    return family.derivatives(y, eta, phi, trials)[:3]


@partial(jit, static_argnames="rule")
def _row_expectations(family: Any, y, tm, tv, phi, trials, *, rule):
    return smoothed.expected(family, y, tm, tv, phi, trials, rule)


@double_precision
def log_base(data: BayesArrays) -> float:
    """The rows' part of the log-likelihood that no parameter enters."""
    value = data.family.log_base(jnp.asarray(data.y, float), jnp.asarray(data.trials))
    return float(np.sum(data.weights * np.asarray(value)))


def log_posterior(data: BayesArrays, params: np.ndarray) -> float:
    """log p(y, beta, zeta, u) without the normalisers of the priors and of u."""
    beta, zeta, u = unpack(data, params)
    l, _, _ = row_derivatives(data, predictor(data, beta, u))
    z = zeta[data.ident]
    with np.errstate(over="ignore"):
        value = l.sum() - 0.5 * np.sum((u * np.exp(-z)) ** 2) - z.sum()
    value -= 0.5 * np.sum((zeta / data.vcp_p) ** 2)
    return float(value - 0.5 * np.sum((beta / data.fe_p) ** 2))


def log_posterior_gradient(data: BayesArrays, params: np.ndarray) -> np.ndarray:
    """Its gradient, packed like ``params``."""
    beta, zeta, u = unpack(data, params)
    _, s, _ = row_derivatives(data, predictor(data, beta, u))
    with np.errstate(over="ignore"):
        precision = np.exp(-2 * zeta[data.ident])
        squares = _by_scale(data, u**2 * precision - 1)
    return np.concatenate(
        [
            s @ data.X - beta / data.fe_p**2,
            squares - zeta / data.vcp_p**2,
            data.Z.T @ s - u * precision,
        ]
    )


def log_posterior_hessian(data: BayesArrays, params: np.ndarray) -> np.ndarray:
    """Its Hessian in full, (k, k)."""
    beta, zeta, u = unpack(data, params)
    p, K = len(beta), len(zeta)
    _, _, w = row_derivatives(data, predictor(data, beta, u))
    precision = np.exp(-2 * zeta[data.ident])
    Z = data.Z.toarray()
    H = np.zeros((len(params),) * 2)
    H[:p, :p] = -(data.X.T * w) @ data.X - np.diag(1 / data.fe_p**2)
    H[p + K :, p + K :] = -(Z.T * w) @ Z - np.diag(precision)
    H[:p, p + K :] = -(data.X.T * w) @ Z
    H[p + K :, :p] = H[:p, p + K :].T
    diagonal = -2 * _by_scale(data, u**2 * precision) - 1 / data.vcp_p**2
    H[p : p + K, p : p + K] = np.diag(diagonal)
    cross = np.zeros((K, len(u)))
    cross[data.ident, np.arange(len(u))] = 2 * u * precision
    H[p : p + K, p + K :] = cross
    H[p + K :, p : p + K] = cross.T
    return H


def log_posterior_constant(data: BayesArrays) -> float:
    """What ``log_posterior`` lacks of log p(y, beta, zeta, u)."""
    k = data.X.shape[1] + len(data.vcp_p) + data.Z.shape[1]
    return float(-k * HALF_LOG_2PI - np.log(data.vcp_p).sum() - np.log(data.fe_p).sum())


@dataclass(frozen=True)
class MeanField:
    """Means and standard deviations of a mean field, in parts."""

    beta: np.ndarray
    zeta: np.ndarray
    u: np.ndarray
    sd_beta: np.ndarray
    sd_zeta: np.ndarray
    sd_u: np.ndarray

    @classmethod
    def of(cls, data: BayesArrays, mean: np.ndarray, sd: np.ndarray) -> MeanField:
        """From packed vectors."""
        return cls(*unpack(data, mean), *unpack(data, sd))


def predictor_moments(data: BayesArrays, q: MeanField) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each row's predictor under q."""
    tm = predictor(data, q.beta, q.u)
    tv = data.X**2 @ q.sd_beta**2 + data.Z.multiply(data.Z) @ q.sd_u**2
    return tm, np.asarray(tv)


def bound_rest(data: BayesArrays, q: MeanField) -> float:
    """The bound without the rows: priors and entropies, constants dropped."""
    m, s = q.zeta[data.ident], q.sd_zeta[data.ident]
    value = -0.5 * np.sum((q.u**2 + q.sd_u**2) * np.exp(2 * (s**2 - m))) - m.sum()
    value -= 0.5 * np.sum((q.zeta**2 + q.sd_zeta**2) / data.vcp_p**2)
    value -= 0.5 * np.sum((q.beta**2 + q.sd_beta**2) / data.fe_p**2)
    logs = (np.log(x).sum() for x in (q.sd_beta, q.sd_zeta, q.sd_u))
    return float(value + sum(logs))


def bound_rest_gradient(
    data: BayesArrays, q: MeanField
) -> tuple[np.ndarray, np.ndarray]:
    """Its gradients in means and standard deviations, packed."""
    m, s = q.zeta[data.ident], q.sd_zeta[data.ident]
    tau = np.exp(2 * (s**2 - m))
    squares = (q.u**2 + q.sd_u**2) * tau
    mean = [
        -q.beta / data.fe_p**2,
        _by_scale(data, squares - 1) - q.zeta / data.vcp_p**2,
        -q.u * tau,
    ]
    sd = [
        -q.sd_beta / data.fe_p**2 + 1 / q.sd_beta,
        _by_scale(data, -2 * squares * s) - q.sd_zeta / data.vcp_p**2 + 1 / q.sd_zeta,
        -q.sd_u * tau + 1 / q.sd_u,
    ]
    return np.concatenate(mean), np.concatenate(sd)


def bound(data: BayesArrays, q: MeanField, rule: str) -> float:
    """The evidence lower bound, constants dropped as statsmodels drops them."""
    e = row_expectations(data, *predictor_moments(data, q), rule)
    return float(e.value.sum()) + bound_rest(data, q)


def bound_gradient(
    data: BayesArrays, q: MeanField, rule: str
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the bound in means and standard deviations, packed.

    By statsmodels' rule: the quadrature of the derivative, as there, which is not
    quite the derivative of the quadrature.
    """
    e = row_expectations(data, *predictor_moments(data, q), rule)
    K = np.zeros(len(q.zeta))
    mean, sd = bound_rest_gradient(data, q)
    mean = mean + np.concatenate([e.slope @ data.X, K, data.Z.T @ e.slope])
    squared = data.Z.multiply(data.Z)
    # d/ds of the rows: -V_i / 2 times 2 s K_ij^2
    rows = [-q.sd_beta * (e.spread @ data.X**2), K, -q.sd_u * (squared.T @ e.spread)]
    return mean, sd + np.concatenate(rows)


def bound_constant(data: BayesArrays, rule: str) -> float:
    """What ``bound`` lacks: normalisers, entropies' halves, terms of y alone."""
    k = data.X.shape[1] + len(data.vcp_p) + data.Z.shape[1]
    logs = np.log(data.vcp_p).sum() + np.log(data.fe_p).sum()
    return float(0.5 * k - logs) + log_base(data)


# statsmodels' family-free forms: h is a function of the standardised predictor --------


def bound_base(data: BayesArrays, h: Callable, tm: np.ndarray, q: MeanField) -> float:
    """y tm + E h(z) over the rows, by the ten-node rule, and the rest."""
    total = sum(w * np.asarray(h(z)) for z, w in zip(*_legendre(), strict=True))
    return float(np.sum(data.weights * (total + data.y * tm))) + bound_rest(data, q)


def bound_gradient_base(
    data: BayesArrays, h: Callable, tv: np.ndarray, q: MeanField
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients from h, the derivative of a row's term in its predictor.

    A row without variance has no share in the gradients of standard deviations: the
    quotient E[z h(z)] / sd is finite there, and is multiplied by them.
    """
    u, r = np.zeros(len(data.y)), np.zeros(len(data.y))
    sd = np.sqrt(np.asarray(tv, float))
    safe = np.where(sd > 0, sd, 1.0)
    for z, w in zip(*_legendre(), strict=True):
        value = w * np.asarray(h(z))
        u = u + data.weights * value
        r = r + z * data.weights * value / safe
    r = np.where(sd > 0, r, 0.0)
    K = np.zeros(len(q.zeta))
    mean, sd_gradient = bound_rest_gradient(data, q)
    s = u + data.weights * data.y
    mean = mean + np.concatenate([s @ data.X, K, data.Z.T @ s])
    squared = data.Z.multiply(data.Z)
    rows = [q.sd_beta * (r @ data.X**2), K, q.sd_u * (squared.T @ r)]
    return mean, sd_gradient + np.concatenate(rows)


def _legendre() -> tuple[np.ndarray, np.ndarray]:
    return smoothed.nodes("legendre", 10)


def _by_scale(data: BayesArrays, values: np.ndarray) -> np.ndarray:
    return np.bincount(data.ident, weights=values, minlength=len(data.vcp_p))
