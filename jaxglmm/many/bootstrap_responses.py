"""Data sets drawn from a linear mixed model without their rows.

All that a fit reads of a response is Z'y, X'y and y'y. With one grouping factor these
can be drawn directly: if Z_g'Z_g = U D U', then Z_g'e = U D^(1/2) w_g for standard
normal w_g; what X'e adds to its regression on Z'e has the covariance X'X - sum
B_g'A_g^-B_g; and e'e is the sum of the squares used so far plus a chi-squared of the
remaining degrees of freedom. So a data set of any number of rows costs J q + p + 1
random numbers.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.estimate.response_lanes import Responses
from jaxglmm.model.linear_problem import Problem

RANK = 1e-10  # eigenvalues relative to the largest that count as zero


class Sampler(eqx.Module):
    """Roots of the covariance of the cross-products with noise.

    half: (q, q, J) with half half' = A_g; used: (q, J) 1 where an eigenvalue is
    positive; carry: (q, p, J), X'e's regression on w; rest: (p, p) a root of what is
    left; rest_used: (p,); df: remaining degrees of freedom.
    """

    half: Float[Array, "q q J"]
    used: Float[Array, "q J"]
    carry: Float[Array, "q p J"]
    rest: Float[Array, "p p"]
    rest_used: Float[Array, " p"]
    df: Scalar


def sampler(A: np.ndarray, BX: np.ndarray, XX: np.ndarray, n: int) -> Sampler:
    """From Z'Z (q, q, J), Z'X (q, p, J), X'X (p, p) on the host."""
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
    df = n - int(used.sum()) - int(positive.sum())
    return Sampler(
        jnp.asarray(np.moveaxis(half, 0, -1)),
        jnp.asarray(used.T * 1.0),
        jnp.asarray(np.moveaxis(carry, 0, -1)),
        jnp.asarray(rest),
        jnp.asarray(positive * 1.0),
        jnp.asarray(float(df)),
    )


@jax.jit
def draw(
    keys: Array,
    problem: Problem,
    s: Sampler,
    theta: Float[Array, " m"],
    beta: Float[Array, " p"],
    sigma: Scalar,
) -> Responses:
    """One response for each key: y = X beta + Z b + e."""
    (lam,) = problem.lambdas(theta)
    p = problem.p
    BX, XX = problem.B[0][:, :p], problem.RR[:p, :p]
    A = problem.system.A
    q, _, J = A.shape

    def one(key: Array) -> Responses:
        draws = jax.random.split(key, 2)
        normal = jax.random.normal(draws[0], (2 * q * J + p,))
        b = sigma * jnp.tensordot(lam, normal[: q * J].reshape(q, J), axes=1)
        w = s.used * normal[q * J : 2 * q * J].reshape(q, J)
        v = s.rest_used * normal[2 * q * J :]
        Ze = sigma * jnp.sum(s.half * w[None], axis=1)
        Xe = sigma * (jnp.einsum("ipg,ig->p", s.carry, w) + s.rest @ v)
        chi = 2 * jax.random.gamma(draws[1], jnp.maximum(s.df, 1e-9) / 2)
        ee = sigma**2 * (
            jnp.sum(w * w) + jnp.sum(v * v) + jnp.where(s.df > 0, chi, 0.0)
        )
        Ab = jnp.sum(A * b[None], axis=1)
        Xb = jnp.einsum("ipg,ig->p", BX, b)
        Zy = jnp.sum(BX * beta[None, :, None], axis=1) + Ab + Ze
        Xy = XX @ beta + Xb + Xe
        yy = beta @ (XX @ beta + 2 * (Xb + Xe)) + jnp.sum(b * (Ab + 2 * Ze)) + ee
        return Responses((Zy,), Xy, yy)

    return jax.vmap(one)(keys)
