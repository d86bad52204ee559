"""The marginal of a Gaussian model over psi = (beta, theta, log sigma), exactly.

    y ~ N(offset + X beta, sigma^2 W^-1 + Z Sigma Z'),  Sigma = Lambda Lambda'

The rows are read once, for Z'WZ, Z'W[X r] and [X r]'W[X r] with r what least squares
leave of y; every value, score and curvature after that costs nothing in n. With
Lambda / sigma in place of Lambda these are the matrices of the linear model
(``integrate.marginal``); with w / sigma^2 for weights its Laplace approximation, which
is exact, and the formulas of ``laplace_derivatives`` hold with nothing left of the
derivatives of w in eta:

    d = N log(2 pi sigma^2) + r'Wr / sigma^2 - nu + log|M|,   nu = h'M^-1h at u = 0
    dd/dbeta = -2 X's,   dd/dlog sigma = 2 (N - e'We / sigma^2 - tr(Sigma Z'V^-1Z))

at the mode, e the residuals there.
"""

from __future__ import annotations

from typing import Any, ClassVar

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.laplace import Evaluation
from jaxglmm.integrate.laplace_derivatives import inner_levels, over_theta, raised
from jaxglmm.model.covariances import base
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.model.predictors import gram, total
from jaxglmm.numerics import spd
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.numerics.system import (
    AbstractFactor,
    AbstractSystem,
    Effects,
    Lambdas,
    at_least,
    inner_all,
    scale,
    scale_transposed,
)
from jaxglmm.runtime.arrays import block_diag, jnp
from jaxglmm.runtime.trees import Module, field


class CrossProducts(Module):
    """What the rows of a Gaussian model say, in place of them.

    beta: (p,) of least squares; system: Z'WZ; B: Z'W[X r] a factor; RR: [X r]'W[X r];
    n: rows, each times its weight; constant: what the density has beside.
    """

    beta: Float[Array, " p"]
    system: AbstractSystem
    B: Effects
    RR: Float[Array, "r r"]
    n: Scalar
    constant: Scalar
    covariances: tuple[AbstractCovariance, ...] = field(static=True)

    @property
    def m(self) -> int:
        """Number of thetas."""
        return base.total(self.covariances)

    def split(self, psi: Float[Array, " k"]) -> tuple[Array, Array, Array]:
        """beta, theta and phi."""
        p = len(self.beta)
        return psi[:p], psi[p : p + self.m], psi[p + self.m :]

    def lambdas(self, theta: Float[Array, " m"]) -> Lambdas:
        """Cholesky factors from theta."""
        return base.lambdas(theta, self.covariances)


def crossproducts(problem: GeneralisedProblem) -> CrossProducts:
    """One pass over the rows, and a second for the products with residuals."""
    used = problem.weights > 0
    count = jnp.where(used, problem.weights, 0.0)
    w = count * problem.trials * jnp.ones_like(problem.y)
    y = jnp.where(used, problem.y - problem.offset, 0.0)
    X, p = problem.X, problem.p
    XX = gram(X, w)
    beta = jnp.zeros(0, y.dtype)
    if p:
        root = spd.cholesky(XX)
        beta = spd.solve(root, total(X, w * y))
        r = y - jnp.tensordot(beta, X, axes=1)
        again = spd.solve(root, total(X, w * r))  # the first one's rounding
        beta, y = beta + again, r - jnp.tensordot(again, X, axes=1)
    Xr, rr = total(X, w * y), jnp.sum(w * y * y)
    top = jnp.concatenate([XX, Xr[:, None]], axis=1)
    base_density = problem.family.log_base(problem.y, problem.trials)
    return CrossProducts(
        beta,
        problem.rows.weigh(w),
        problem.rows.collect([*(w * x for x in X), w * y]),
        jnp.concatenate([top, jnp.append(Xr, rr)[None]]),
        jnp.sum(count * jnp.ones_like(y)),
        -2 * jnp.sum(jnp.where(used, count * base_density, 0.0)),
        problem.covariances,
    )


class GivenParameters(Module):
    """The random effects given psi. u: their mode; factor: of M, their precision."""

    u: Effects
    factor: AbstractFactor
    value: Scalar
    rel: Lambdas
    kept: Lambdas
    z: Effects
    nu: Scalar


def conditional(
    cp: CrossProducts, psi: Float[Array, " k"], raise_zeros: bool = False
) -> GivenParameters:
    """u given psi, and -2 log-likelihood.

    raise_zeros: several factors divide by Lambda for the derivatives (``at_least``).
    """
    beta, theta, phi = cp.split(psi)
    sigma = jnp.exp(phi[0])
    rel = tuple(x / sigma for x in cp.lambdas(theta))
    kept = at_least(rel) if raise_zeros and len(rel) > 1 else rel
    factor = cp.system.factor(kept)
    v = jnp.append(cp.beta - beta, 1.0)  # [X r] v = y - X beta
    z = tuple(jnp.sum(b * v[None, :, None], axis=1, keepdims=True) for b in cp.B)
    half = factor.forward(tuple(x / sigma for x in scale_transposed(rel, z)))
    nu = sum(jnp.sum(x * x) for x in half)
    squares = v @ cp.RR @ v / sigma**2
    value = cp.n * (LOG_2PI + 2 * phi[0]) + squares - nu + factor.log_det()
    u = factor.backward(half)
    return GivenParameters(u, factor, value + cp.constant, rel, kept, z, nu)


class Exact(AbstractMarginal):
    """Integrate u out of a Gaussian model with identity link: no approximation."""

    name: ClassVar[str] = "exact"
    beyond: ClassVar[bool] = False

    def __repr__(self) -> str:
        """Its name; users do not choose it."""
        return "Exact()"

    @property
    def words(self) -> str:
        """What a summary calls it."""
        return "exact"

    def refusal(self, problem: GeneralisedProblem) -> str | None:
        """For linear models."""
        if problem.family.is_linear_model and problem.predictors.K == 1:
            return None
        return (
            "random effects are integrated out exactly where the response is Gaussian "
            "with identity link; use Laplace's approximation"
        )

    def over(self, problem: Any) -> CrossProducts:
        """The cross-products of a problem."""
        if isinstance(problem, CrossProducts):
            return problem
        return crossproducts(problem.folded())

    def mode(self, problem: Any, psi: Array, u: Effects) -> Effects:
        """The conditional mean of u, which is its mode."""
        return conditional(self.over(problem), psi).u

    nearer = mode

    def value(self, problem: Any, psi: Array, u: Effects) -> Scalar:
        """-2 log-likelihood."""
        return conditional(self.over(problem), psi).value

    def score(self, problem: Any, psi: Array, u: Effects) -> Float[Array, " k"]:
        """The score; u is known with it."""
        return self.derivatives(problem, psi, u).score

    def derivatives(self, problem: Any, psi: Array, u: Effects) -> Evaluation:
        """Value, score, average information as the curvature, and u."""
        cp = self.over(problem)
        p = len(cp.beta)
        beta, theta, phi = cp.split(psi)
        at, lam = conditional(cp, psi, True), cp.lambdas(theta)
        s2 = jnp.exp(2 * phi[0])
        v = jnp.append(cp.beta - beta, 1.0)
        b = scale(lam, at.u)
        t = tuple((x - y) / s2 for x, y in zip(at.z, cp.system.normal(b), strict=True))
        BX = tuple(x[:, :p] for x in cp.B)
        Xs = (cp.RR[:p] @ v - inner_all(BX, b)[:, 0]) / s2
        squares = sum(jnp.sum(x * x) for x in at.u)
        left = v @ cp.RR @ v / s2 - at.nu - squares  # e'We / sigma^2
        traces = at.factor.traces(at.factor.selected())
        S = tuple(x / s2 for x in traces)
        G = tuple(x - inner_levels(y, y) for x, y in zip(S, t, strict=True))
        _, theta_score, edge, along = over_theta(cp, theta, lam, G, t)
        spread = sum(jnp.sum(x * (y @ y.T)) for x, y in zip(S, lam, strict=True))
        by_phi = 2 * (cp.n - left - spread)
        score = jnp.concatenate([-2 * Xs, theta_score, by_phi[None]])
        Q, T = at.factor.project(BX, cp.RR[:p, :p])
        info = at.factor.gram(along) / s2
        cross = jnp.sqrt(2.0) * inner_all(T, along) / s2
        size = jnp.maximum(4 * left, 0.1 + 0.4 * jnp.abs(left))[None]
        H = jnp.block([[2 * Q / s2, cross], [cross.T, info + edge]])
        diagonal = [2 * spd.diagonal(Q) / s2, 1 + spd.diagonal(info), size]
        return Evaluation(
            at.value - raised(traces, at.rel, at.kept),
            score,
            block_diag(H, jnp.diag(size)),
            jnp.concatenate(diagonal),
            at.u,
        )
