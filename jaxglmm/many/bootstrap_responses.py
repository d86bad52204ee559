"""Data sets drawn from a linear mixed model without their rows.

All that a fit reads of a response is Z'y, X'y and y'y. With one grouping factor these
can be drawn directly: if Z_g'Z_g = U D U', then Z_g'e = U D^(1/2) w_g for standard
normal w_g; what X'e adds to its regression on Z'e has the covariance X'X - sum
B_g'A_g^-B_g; and e'e is the sum of the squares used so far plus a chi-squared of the
remaining degrees of freedom. So a data set of any number of rows costs J q + p + 1
random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxglmm._typing import Float
from jaxglmm.estimate.response_lanes import ResponseProducts
from jaxglmm.model.linear_problem import Problem

RANK = 1e-10  # eigenvalues relative to the largest that count as zero


@dataclass(frozen=True)
class Sampler:
    """Roots of the covariance of the cross-products with noise.

    A: (q, q, J) and BX: (q, p, J), Z'Z and Z'X; XX: (p, p); half: (q, q, J) with half
    half' = A_g; used: (q, J) 1 where an eigenvalue is positive; carry: (q, p, J), X'e's
    regression on w; rest: (p, p) a root of what is left; rest_used: (p,); df: remaining
    degrees of freedom.
    """

    A: Float[np.ndarray, "q q J"]
    BX: Float[np.ndarray, "q p J"]
    XX: Float[np.ndarray, "p p"]
    half: Float[np.ndarray, "q q J"]
    used: Float[np.ndarray, "q J"]
    carry: Float[np.ndarray, "q p J"]
    rest: Float[np.ndarray, "p p"]
    rest_used: Float[np.ndarray, " p"]
    df: int


def sampler(problem: Problem, n: int) -> Sampler:
    """Of a problem with one grouping factor and n rows."""
    p = problem.p
    A = np.asarray(problem.system.A)
    BX = np.asarray(problem.B[0])[:, :p]
    XX = np.asarray(problem.RR)[:p, :p]
    values, U = np.linalg.eigh(np.moveaxis(A, -1, 0))
    used = values > RANK * np.maximum(values[:, -1:], 1e-300)
    root = np.sqrt(np.where(used, values, 0.0))
    half = U * root[:, None, :]
    inverse = np.where(used, 1 / np.where(used, root, 1.0), 0.0)
    carry = inverse[:, :, None] * (np.swapaxes(U, 1, 2) @ np.moveaxis(BX, -1, 0))
    left = XX - np.einsum("gip,gir->pr", carry, carry)
    if len(XX):
        size, V = np.linalg.eigh(left)
        positive = size > 1e-9
        rest = V * np.sqrt(np.where(positive, size, 0.0))
    else:
        positive, rest = np.zeros(0, bool), np.zeros((0, 0))
    return Sampler(
        A,
        BX,
        XX,
        np.moveaxis(half, 0, -1),
        used.T * 1.0,
        np.moveaxis(carry, 0, -1),
        rest,
        positive * 1.0,
        n - int(used.sum()) - int(positive.sum()),
    )


def draw(
    rng: np.random.Generator,
    D: int,
    s: Sampler,
    lam: Float[np.ndarray, "q q"],
    beta: Float[np.ndarray, " p"],
    sigma: float,
) -> ResponseProducts:
    """D responses y = X beta + Z b + e; lam: Lambda."""
    q, p, J = s.BX.shape
    effects, noise = rng.standard_normal((2, D, q, J))
    v = s.rest_used * rng.standard_normal((D, p))
    chi = rng.chisquare(s.df, D) if s.df > 0 else 0.0
    b = sigma * _mixed(lam[:, :, None], effects)
    w = s.used * noise
    Ze = sigma * _mixed(s.half, w)
    Xe = sigma * (_across(s.carry, w) + v @ s.rest.T)
    ee = sigma**2 * (np.square(w).sum(axis=(1, 2)) + np.square(v).sum(axis=1) + chi)
    Ab, Xb = _mixed(s.A, b), _across(s.BX, b)
    fixed = np.einsum("ipg,p->ig", s.BX, beta)
    at = s.XX @ beta
    inside = np.einsum("dig,dig->d", b, Ab + 2 * Ze)
    yy = beta @ at + 2 * (Xb + Xe) @ beta + inside + ee
    return ResponseProducts((fixed + Ab + Ze,), at + Xb + Xe, yy)


def _mixed(A: Float[np.ndarray, "q q J"], x: Float[np.ndarray, "D q J"]) -> np.ndarray:
    """A_g x_g of every level, (D, q, J)."""
    columns = range(x.shape[1])
    return np.stack([sum(A[i, j] * x[:, j] for j in columns) for i in columns], axis=1)


def _across(B: Float[np.ndarray, "q p J"], x: Float[np.ndarray, "D q J"]) -> np.ndarray:
    """Sum of B_g'x_g, (D, p)."""
    q, p, J = B.shape
    return x.reshape(len(x), q * J) @ np.swapaxes(B, 1, 2).reshape(q * J, p)
