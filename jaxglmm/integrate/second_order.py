"""Laplace's approximation to second order: independent scalar random effects.

With h_k the k-th derivative of h = -l(u) + u^2 / 2 of a level at its mode,

    log L_g = Laplace's + (5 h_3^2 / (24 h_2^3) - h_4 / (8 h_2^2)),

the next term of the expansion (Shun and McCullagh 1995; Raudenbush, Yang and Yosef
2000). It needs the fourth derivative of the rows' log density, and next to no time.
"""

from __future__ import annotations

from typing import ClassVar

import jax

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.laplace_derivatives import Hessian, Point, Terms, predictor
from jaxglmm.integrate.quadrature import one_factor
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import Effects, scale, scale_transposed
from jaxglmm.runtime.arrays import is_host, jnp, jvp_rows
from jaxglmm.runtime.trees import field, tree_at


class SecondOrder(AbstractMarginal):
    """This approximation as a marginal; hessian: "observed" is all that it takes."""

    name: ClassVar[str] = "second-order"

    hessian: Hessian = field(static=True, default="observed")  # pyright: ignore[reportIncompatibleVariableOverride]

    def __repr__(self) -> str:
        """As a preset is typed."""
        given = f"hessian={self.hessian!r}, " if self.hessian != "observed" else ""
        return f"jg.Laplace({given}order=2)"

    @property
    def words(self) -> str:
        """What a summary calls it."""
        return "second-order Laplace approximation"

    def refusal(self, problem: GeneralisedProblem) -> str | None:
        """For one predictor and one random effect a level."""
        what = "the second-order approximation"
        several = one_factor(problem, what)
        if several or not problem.sides:
            return several
        if self.hessian != "observed":
            return (
                f"{what} is centred by the observed information, not the expected one"
            )
        if problem.predictors.K > 1:
            return f"{what} is for models of one linear predictor. Use quadrature"
        (q,) = problem.sides
        if q == 1:
            return None
        return (
            f"{what} is for one random effect a level; this model has {q}. "
            "Use quadrature or Laplace's approximation"
        )

    def improve(
        self,
        problem: GeneralisedProblem,
        terms: Terms,
        psi: Float[Array, " k"],
        at: Point,
        u: Effects,
        rule: Array | None = None,
    ) -> Point:
        """See ``improve`` of this module."""
        return improve(problem, terms, psi, at, u)


def improve(
    problem: GeneralisedProblem,
    terms: Terms,
    psi: Float[Array, " k"],
    at: Point,
    u: Effects,
) -> Point:
    """Value and score to second order in place of the first; u must be the mode.

    problem: folded; at: the point at (psi, u), whose curvature is kept.
    """
    if is_host():  # reverse mode is the device's
        raise NotImplementedError
    value, score = jax.value_and_grad(lambda x: _value(problem, terms, x, u))(psi)
    return tree_at(lambda x: (x.value, x.score), at, (value, score))


def _value(problem: GeneralisedProblem, terms: Terms, psi: Array, u: Effects) -> Scalar:
    """-2 log-likelihood; one Newton step carries the derivative of the mode."""
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    rows = problem.rows
    one = jnp.ones_like(problem.y)

    def slopes(mode: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        r = terms(predictor(problem, beta, scale(lam, mode)), phi)
        t = scale_transposed(lam, rows.collect([r.s]))
        M = rows.weigh(r.w).factor(lam)
        step = M.backward(M.forward(tuple(a - b for a, b in zip(mode, t, strict=True))))
        return tuple(a - b for a, b in zip(mode, step, strict=True))  # pyright: ignore

    mode = slopes(u)
    eta = predictor(problem, beta, scale(lam, mode))

    def two(x: Array) -> tuple[Array, Array, Array]:
        r = terms(x, phi)
        return r.l, r.w, r.w1

    (l, w, w1), (_, _, w2) = jvp_rows(two, (eta,), (one,))
    apart = terms(eta, phi).apart
    z = lam[0][0, 0] * rows.z[0][0]
    h2 = 1 + rows.level_sum(z * z * w)
    h3 = rows.level_sum(z * z * z * w1)
    h4 = rows.level_sum(z * z * z * z * w2)
    first = -2 * jnp.sum(l) + jnp.sum(mode[0] ** 2) + jnp.sum(jnp.log(h2))
    if apart is not None:
        first = first - 2 * apart
    return first - 2 * jnp.sum(5 * h3**2 / (24 * h2**3) - h4 / (8 * h2**2))
