"""Conjugate gradients for many right sides at once, and what they tell of log|H|.

The steps of conjugate gradients from a vector w are those of Lanczos: they give the
tridiagonal T whose Gauss rule is w' f(H) w = |w|^2 sum_j tau_j^2 f(t_j), t_j the
eigenvalues of T and tau_j the first components of its eigenvectors (Golub and Meurant
1994; Ubaru, Chen and Saad 2017 for traces by random w).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MOST = 2_000  # steps


class Solved:
    """x: (m, K) with H x = w; steps: (K,) taken; logs: (K,) w' log(H) w."""

    def __init__(self, x: np.ndarray, steps: np.ndarray, logs: np.ndarray):
        self.x, self.steps, self.logs = x, steps, logs


def solve(
    apply: Callable[[np.ndarray], np.ndarray],
    w: np.ndarray,
    tol: float,
    most: int = MOST,
) -> Solved:
    """H x = w for w (m, K), each column until its residual is ``tol`` of its length.

    Columns that are not there after ``most`` steps are NaN.
    """
    K = w.shape[1]
    x, r = np.zeros_like(w), w.copy()
    first = rr = _dots(r, r)
    d = r.copy()
    steps = np.zeros(K, int)
    alphas, betas = [], []
    active = rr > 0
    for _ in range(most):
        if not active.any():
            break
        q = apply(d)
        bent = _dots(d, q)
        alpha = np.where(active, rr / np.where(bent > 0, bent, np.nan), 0.0)
        x += alpha * d
        r -= alpha * q
        new = _dots(r, r)
        beta = np.where(active, new / np.where(rr > 0, rr, 1.0), 0.0)
        steps += active
        alphas.append(alpha)
        betas.append(beta)
        d *= beta
        d += r
        rr = new
        active = active & ~(rr <= tol**2 * first) & np.isfinite(rr)
    x[:, active | ~np.isfinite(rr)] = np.nan
    logs = np.zeros(K)
    for k in range(K):
        n = int(steps[k])
        if n:
            a = np.array([alphas[j][k] for j in range(n)])
            b = np.array([betas[j][k] for j in range(n)])
            logs[k] = first[k] * _log_rule(a, b)
    return Solved(x, steps, logs)


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ik,ik->k", a, b)


def _log_rule(a: np.ndarray, b: np.ndarray) -> float:
    """e_1' log(T) e_1 from the steps of conjugate gradients."""
    from scipy.linalg import eigh_tridiagonal

    if not (np.isfinite(a).all() and np.isfinite(b).all() and (a > 0).all()):
        return np.nan
    diagonal = 1 / a
    diagonal[1:] += b[:-1] / a[:-1]
    values, vectors = eigh_tridiagonal(diagonal, np.sqrt(b[:-1]) / a[:-1])
    tiny = np.finfo(float).tiny
    return float(vectors[0] ** 2 @ np.log(np.maximum(values, tiny)))
