"""Textbook formulas with n x n matrices: what the fast code must reproduce.

``Dense`` holds rows in internal coordinates (those of ``Problem``): X, y, and one Z
(n, J, q) a factor, all multiplied by the square roots of the weights. The functions
take NumPy or JAX arrays, and can be differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from doors import Moments


@dataclass(frozen=True)
class Dense:
    y: np.ndarray
    X: np.ndarray
    Z: tuple[np.ndarray, ...]

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def flat(self) -> np.ndarray:
        """Z (n, m): factor by factor, level by level, component by component."""
        return np.concatenate([z.reshape(self.n, -1) for z in self.Z], axis=1)


def dense(moments: Moments, y: np.ndarray, X: np.ndarray) -> Dense:
    """The rows behind the cross-products of the rows that ``build`` was given."""
    w, fixed = moments.weights, moments.fixed
    root = np.ones(len(y)) if w is None else np.sqrt(w)
    Z = []
    for f in moments.factors:
        z = np.zeros((len(y), f.n_levels, f.q))
        z[np.arange(len(y)), f.codes] = 1.0 if f.values is None else f.values
        Z.append(z * root[:, None, None])
    internal = (y - X @ fixed.beta0) / fixed.scale
    return Dense(internal * root, X @ fixed.R_inverse * root[:, None], tuple(Z))


def big_lambda(data: Dense, lam) -> np.ndarray:
    """Lambda of all random effects, block diagonal."""
    m = data.flat.shape[1]
    out, start = np.zeros((m, m)), 0
    for z, x in zip(data.Z, lam, strict=True):
        for _ in range(z.shape[1]):
            stop = start + len(x)
            out[start:stop, start:stop] = x
            start = stop
    return out


def V(data: Dense, lam):
    """I + Z Lambda Lambda' Z'."""
    out = jnp.eye(data.n)
    for z, x in zip(data.Z, lam, strict=True):
        half = (z @ x).reshape(data.n, -1)
        out = out + half @ half.T
    return out


def V_of_sigma(data: Dense, sigma):
    """I + Z Sigma Z', for relative covariances that need not be factored."""
    out = jnp.eye(data.n)
    for z, S in zip(data.Z, sigma, strict=True):
        out = out + jnp.einsum("njq,qr,mjr->nm", z, S, z)
    return out


def parts(data: Dense, V):
    """log|V|, log|X'V^-1X|, beta, r^2."""
    inverse = jnp.linalg.inv(V)
    log_det = jnp.linalg.slogdet(V)[1]
    if data.X.shape[1] == 0:
        return log_det, 0.0, jnp.zeros(0), data.y @ inverse @ data.y
    Q = data.X.T @ inverse @ data.X
    beta = jnp.linalg.solve(Q, data.X.T @ inverse @ data.y)
    r = data.y - data.X @ beta
    return log_det, jnp.linalg.slogdet(Q)[1], beta, r @ inverse @ r


def deviance(data: Dense, V, log_sigma2, reml: bool):
    """Minus twice the log-density, beta at its optimum (REML: integrated out)."""
    log_det, log_det_Q, _, r2 = parts(data, V)
    N = data.n - data.X.shape[1] if reml else data.n
    d = log_det + N * (jnp.log(2 * jnp.pi) + log_sigma2) + r2 * jnp.exp(-log_sigma2)
    return d + log_det_Q if reml else d


def profiled(data: Dense, V, reml: bool):
    """The same with sigma^2 at its optimum."""
    N = data.n - data.X.shape[1] if reml else data.n
    return deviance(data, V, jnp.log(parts(data, V)[3] / N), reml)


def projector(data: Dense, V) -> np.ndarray:
    """P = V^-1 - V^-1 X (X'V^-1X)^-1 X'V^-1."""
    inverse = np.linalg.inv(V)
    VX = inverse @ data.X
    return inverse - VX @ np.linalg.pinv(data.X.T @ VX) @ VX.T


def entry(q: int, i: int, j: int) -> np.ndarray:
    """e_i e_j' + e_j e_i', or e_i e_i'."""
    E = np.zeros((q, q))
    E[i, j] = E[j, i] = 1.0
    return E


def components(data: Dense, covariances) -> list[np.ndarray]:
    """G_r = Z E_r Z' of every variance and covariance, and I."""
    out = []
    for z, own in zip(data.Z, covariances, strict=True):
        for i, j in own.entries:
            E = entry(z.shape[2], i, j)
            out.append(np.einsum("njq,qr,mjr->nm", z, E, z))
    return [*out, np.eye(data.n)]


def along_lambda(data: Dense, lam, covariances) -> list[np.ndarray]:
    """V_a = dV / dLambda_a for the free entries a."""
    out = []
    for z, x, own in zip(data.Z, lam, covariances, strict=True):
        for i, j in own.entries:
            change = np.zeros_like(x)
            change[i, j] = 1.0
            E = change @ x.T + x @ change.T
            out.append(np.einsum("njq,qr,mjr->nm", z, E, z))
    return out
