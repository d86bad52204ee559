"""Mean-field variational Bayes: independent Gaussians for every unknown.

    q = prod N(beta_j) prod N(b_j) prod N(zeta_k),  zeta_k a log standard deviation

with b ~ N(0, e^{2 zeta}), so that E e^{-2 zeta} = e^{-2m + 2v} and everything is closed
but the one-dimensional expectations of the rows. One loop: Newton's method for the
means, all at once by the structured systems with weights averaged over q; variances
from their fixed point s_j^2 = 1 / (P_j + sum_i K_ij^2 V_i); and in the same pass Newton
for zeta, with what moving zeta does to the means and variances at fixed weights.

The factorisation is too narrow wherever coefficients and random effects are correlated
(an intercept's sd on cbpp is 45 per cent of the truth): this is here for comparison,
and because it is the documented estimator of statsmodels' mixed models.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxglmm._typing import Array, Count, Float, Scalar
from jaxglmm.density import smoothed
from jaxglmm.density.smoothed import Expected, Rule
from jaxglmm.integrate.laplace_derivatives import predictor
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.model.predictors import gram, total
from jaxglmm.numerics.bordered import Bordered, bordered
from jaxglmm.numerics.system import Effects, Lambdas, scale, scale_transposed
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.trees import Module, field, tree_at
from jaxglmm.structure.rows import AbstractRows

FLAT = 0.02  # least share of its bound that a curvature in zeta may fall to
FAR = 1.0  # longest step in a log standard deviation


class Scales(Module):
    """Independent effects whose log standard deviations zeta are free.

    index: of each factor's components, which zeta; T: (q,) a factor, by how much the
    problem's effects exceed the user's; real: (q, 1, J) a factor, 1 where a level is
    one, 0 where it pads; count: (k,) effects of each zeta; sd: (k,) of its normal
    prior.
    """

    index: tuple[tuple[int, ...], ...] = field(static=True)
    T: tuple[Float[Array, " q"], ...]
    real: tuple[Float[Array, "q 1 J"], ...]
    count: Float[Array, " k"]
    sd: Float[Array, " k"]

    def lambdas(self, zeta: Float[Array, " k"]) -> Lambdas:
        """Diagonal relative factors with standard deviations e^zeta."""
        return tuple(
            jnp.diag(jnp.exp(zeta[jnp.asarray(i)]) * T)
            for i, T in zip(self.index, self.T, strict=True)
        )

    def precisions(self, tau: Float[Array, " k"]) -> tuple[Float[Array, "q 1 1"], ...]:
        """Prior precision of the problem's effects where the user's have tau."""
        return tuple(
            (tau[jnp.asarray(i)] / T**2)[:, None, None]
            for i, T in zip(self.index, self.T, strict=True)
        )

    def sums(self, squares: Effects) -> Float[Array, " k"]:
        """Sum of the user's effects' squares (given the problem's) over each zeta."""
        total = jnp.zeros_like(self.count)
        for i, T, real, x in zip(self.index, self.T, self.real, squares, strict=True):
            own = jnp.sum(x * real, axis=(1, 2)) / T**2
            total = total.at[jnp.asarray(i)].add(own)
        return total

    def apart(self, b: Effects) -> Effects:
        """b / T^2, one vector a zeta with the others' effects zero: (q, k, J)."""
        k = len(self.count)
        out = []
        for i, T, x in zip(self.index, self.T, b, strict=True):
            member = jnp.asarray(i)[:, None] == jnp.arange(k)
            share = jnp.where(member, (T**-2)[:, None], 0.0)
            out.append(share[:, :, None] * x)
        return tuple(out)


class Factored(Module):
    """q: means and variances of beta (p,), b (q, 1, J) a factor and zeta (k,).

    gap: what the last step thought was left; steps: passes over the rows.
    """

    beta: Float[Array, " p"]
    b: Effects
    zeta: Float[Array, " k"]
    var_beta: Float[Array, " p"]
    var_b: Effects
    var_zeta: Float[Array, " k"]
    gap: Scalar
    steps: Count


def rows_of(
    problem: GeneralisedProblem, tm: Array, tv: Array, phi: Array, rule: Rule, k: int
) -> Expected:
    """Expectations of the rows with their weights; nothing from rows of weight zero."""
    e = smoothed.expected(
        problem.family, problem.y, tm, tv, phi, problem.trials, rule, k, valued=False
    )
    used, v = problem.weights > 0, problem.weights
    return jax.tree.map(lambda x: jnp.where(used, v * x, 0.0), e)


@partial(jit, static_argnames=("rule", "k"))
def fit_mean_field(
    problem: GeneralisedProblem,
    scales: Scales,
    precision: Float[Array, " p"],
    phi: Float[Array, " r"],
    start: Factored,
    tol: Scalar,
    max_steps: Count,
    rule: Rule = "exact",
    k: int = smoothed.NODES,
) -> Factored:
    """Maximise the bound from ``start``; precision: of the normal priors of beta."""
    problem = problem.folded()
    squared, X2 = _squared(problem.rows), problem.X**2

    def variance(var_b: Effects, var_beta: Array) -> Array:
        own = squared.spread(var_b)
        return own + jnp.tensordot(var_beta, X2, axes=1) if problem.p else own

    def body(q: Factored) -> Factored:
        tm = predictor(problem, q.beta, q.b)
        tv = variance(q.var_b, q.var_beta)
        e = rows_of(problem, tm, tv, phi, rule, k)
        tau = jnp.exp(-2 * q.zeta + 2 * q.var_zeta)
        own = scales.precisions(tau)
        normal = _normal(problem, scales, e.weight, q, precision)
        r = problem.rows.collect(e.slope[None])
        r = tuple(a - t * b for a, t, b in zip(r, own, q.b, strict=True))
        s = total(problem.X, e.slope) - precision * q.beta
        moved = scales.apart(q.b)
        right = tuple(jnp.concatenate([a, c], 1) for a, c in zip(r, moved, strict=True))
        left = jnp.zeros((len(s), 1 + len(tau))).at[:, 0].set(s)
        du, dx = normal.solve(scale_transposed(normal.factor.lam, right), left)
        db = scale(normal.factor.lam, du)
        step_b, step = tuple(x[:, :1] for x in db), dx[:, 0]
        gain = s @ step + sum(jnp.sum(a * c) for a, c in zip(r, step_b, strict=True))
        t = _damping(problem, step, step_b)
        beta = q.beta + t * step
        b = tuple(x + t * c for x, c in zip(q.b, step_b, strict=True))
        var_b = tuple(
            1 / (p + x)
            for p, x in zip(own, squared.collect(e.spread[None]), strict=True)
        )
        var_beta = 1 / (precision + total(X2, e.spread))
        # zeta: S_k = E b_k'b_k, and how it moves with zeta at these weights
        S = scales.sums(tuple(x * x + v for x, v in zip(b, var_b, strict=True)))
        T4 = _per_scale(scales, tuple(v * v for v in var_b))
        cross = _products(scales, b, tuple(x[:, 1:] for x in db))
        slope = tau * S - scales.count - q.zeta / scales.sd**2
        bound = jnp.diag(2 * tau * S + 1 / scales.sd**2)
        dS = 2 * tau * (jnp.diag(T4) + 2 * cross)
        H = bound - tau[:, None] * dS
        H = (H + H.T) / 2
        floor = FLAT * jnp.min(jnp.diagonal(bound))
        H = jnp.where(jnp.linalg.eigvalsh(H)[0] > floor, H, bound)
        step_z = jnp.linalg.solve(H, slope)
        zeta = q.zeta + jnp.clip(step_z, -FAR, FAR)
        var_zeta = 1 / (1 / scales.sd**2 + 2 * (scales.count + zeta / scales.sd**2))
        new_tv = variance(var_b, var_beta)
        change = jnp.max(jnp.abs(new_tv - tv) / (1e-3 + new_tv))
        gap = gain + jnp.abs(slope @ step_z) + change**2
        return Factored(beta, b, zeta, var_beta, var_b, var_zeta, gap, q.steps + 1)

    return lax.while_loop(
        lambda q: (q.steps < max_steps) & ~(q.gap <= tol), body, start
    )


def _normal(
    problem: GeneralisedProblem,
    scales: Scales,
    w: Array,
    q: Factored,
    precision: Array,
) -> Bordered:
    """The precision of (b, beta) at weights w."""
    lam = scales.lambdas(q.zeta - q.var_zeta)
    rows, X = problem.rows, problem.X
    return bordered(
        rows.weigh(w), lam, rows.collect(w * X), gram(X, w), jnp.diag(precision)
    )


def _squared(rows: AbstractRows) -> AbstractRows:
    """The same design with the squares of its values."""
    return tree_at(lambda r: r.z, rows, tuple(z * z for z in rows.z))


def _products(scales: Scales, b: Effects, x: Effects) -> Float[Array, "k k"]:
    """b_k'x_l, b's effects of zeta k with the vector l of x, in the user's units."""
    columns = [
        scales.sums(tuple(c * v[:, j : j + 1] for c, v in zip(b, x, strict=True)))
        for j in range(len(scales.count))
    ]
    return jnp.stack(columns, axis=1)


def _per_scale(scales: Scales, squares: Effects) -> Float[Array, " k"]:
    """Sum over each zeta of what has the problem's units to the fourth power."""
    total = jnp.zeros_like(scales.count)
    for i, T, real, x in zip(scales.index, scales.T, scales.real, squares, strict=True):
        own = jnp.sum(x * real, axis=(1, 2)) / T**4
        total = total.at[jnp.asarray(i)].add(own)
    return total


def _damping(problem: GeneralisedProblem, step: Array, step_b: Effects) -> Scalar:
    """log(1 + r) / r for the largest change r of a predictor (self-concordance)."""
    change = predictor(problem, step, step_b) - problem.offset
    r = jnp.max(jnp.where(problem.weights > 0, jnp.abs(change), 0.0))
    return jnp.where(r < 1e-2, 1.0, jnp.log1p(r) / jnp.maximum(r, 1e-300))
