"""Starting values by moments: MINQUE(0), no factorisation.

With e the residuals of least squares and P their projector, E ||Z_k'e||^2 is linear in
the variances of all components k (columns of the random effects) and of the residual:

    ||Z_k'e||^2 = sum_l gamma_l ||Z_k'P Z_l||^2 + sigma^2 tr(Z_k'P Z_k)
    e'e         = sum_l gamma_l tr(Z_l'P Z_l)   + sigma^2 (n - p)

(Rao 1970, with prior weight zero on the components.) All of it from cross-products; the
basis of X is orthonormal, so P = I - XX'.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.integrate import exact
from jaxglmm.model.covariances.base import sharing
from jaxglmm.model.covariances.base import starts as covariance_starts
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics import spd
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.arrays import jnp, lax, put

LEAST, MOST = 0.1, 100.0  # relative standard deviations to start from


def best(problem: Problem, reml: bool) -> Float[Array, " m"]:
    """theta by moments; of several ranges of a correlation the likeliest."""
    found = candidates(problem)
    if len(found) == 1:
        return found[0]

    def value(theta: Array) -> Array:
        at = exact.marginal(problem, problem.lambdas(theta))
        return exact.profiled_value(problem, at, reml)

    return likeliest(found, value)


def likeliest(
    found: Float[Array, "k m"], value: Callable[[Array], Array]
) -> Float[Array, " m"]:
    """The row with the smallest criterion, the first where none is finite."""
    values = lax.map(value, found)
    return found[jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))]


def moments(problem: Problem) -> Float[Array, " m"]:
    """theta with the diagonal by moments, zero elsewhere."""
    return candidates(problem)[0]


def candidates(problem: Problem) -> Float[Array, "k m"]:
    """``moments``, and the same with other ranges of correlations by distance."""
    p = problem.p
    squares, diagonal = problem.system.squares()
    K = len(diagonal)
    X: Effects = tuple(b[:, :p] for b in problem.B)
    own = jnp.concatenate([jnp.sum(b[:, p] ** 2, axis=-1) for b in problem.B])
    spread = _spread(problem, X)
    C = squares - 2 * spread[0] + spread[1]
    trace = diagonal - spread[2]
    residual = problem.n - p
    last = jnp.append(trace, residual)
    shared = np.array(sharing(problem.covariances), int)
    if len(set(shared.tolist())) < K:  # sums over the columns of one variance
        S = (shared[:, None] == np.arange(shared.max() + 1)).astype(float)
        C, trace, own, K = S.T @ C @ S, S.T @ trace, S.T @ own, S.shape[1]
        last = jnp.append(trace, residual)
    A = jnp.concatenate([jnp.concatenate([C, trace[:, None]], 1), last[None]])
    right = jnp.append(own, problem.RR[p, p])
    # A is a Gram matrix; a trace of ridge where two components are the same
    # two terms with the same levels have the same equations
    gamma = spd.solve(spd.cholesky(A * (1 + 1e-10 * np.eye(len(A)))), right)
    # MINQUE is unbiased and no more: its residual variance may be negative
    base = jnp.maximum(gamma[K], 1e-3 * problem.RR[p, p] / problem.n)
    sd = jnp.sqrt(jnp.clip(gamma[:K] / base, LEAST**2, MOST**2))
    sd = jnp.where(jnp.isfinite(sd), sd, 1.0)[shared]
    found = [jnp.stack(x) for x in covariance_starts(problem.covariances, sd)]
    return jnp.stack(found)


def _spread(problem: Problem, X: Effects) -> tuple[Array, Array, Array]:
    """tr(X_k'(Z_k'Z_l)X_l), tr(X_k X_k' X_l X_l') and tr(X_k'X_k), X_k = Z_k'X."""
    p = problem.p
    sides = problem.sides
    K = sum(sides)
    columns = []  # component l alone, its p columns side by side
    offset = 0
    if p == 0:
        return jnp.zeros((K, K)), jnp.zeros((K, K)), jnp.zeros(K)
    for x, q in zip(X, sides, strict=True):
        wide = jnp.zeros((q, K, p, x.shape[-1]), x.dtype)
        each = np.arange(q)
        wide = put(wide, (each, offset + each), x)
        columns.append(wide.reshape(q, K * p, -1))
        offset += q
    mapped = problem.system.normal(tuple(columns))
    first = jnp.concatenate(
        [
            jnp.sum(x[:, None] * m.reshape(len(x), K, p, -1), axis=(2, 3))
            for x, m in zip(X, mapped, strict=True)
        ]
    )
    grams = jnp.concatenate([_gram(x) for x in X]).reshape(K, p * p)
    return first, spd.product(grams, grams.T), jnp.sum(grams[:, :: p + 1], axis=1)


def _gram(x: Float[Array, "q p J"]) -> Float[Array, "q p p"]:
    """x_i x_i' of every component."""
    if x.shape[1] <= spd.TINY:
        return jnp.sum(x[:, :, None] * x[:, None], axis=-1)
    return x @ jnp.swapaxes(x, 1, 2)
