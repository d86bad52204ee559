"""The exact Hessian of a generalised model's marginal likelihood at its optimum.

Forward mode over the analytic score, after one Newton step that carries the mode's
derivative. It gives standard errors, once a fit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from jaxglmm._typing import Array, Float
from jaxglmm.integrate import fixed_only as _fixed_only
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate.base import AT_MODE, AbstractMarginal
from jaxglmm.integrate.exact_marginal import Exact
from jaxglmm.integrate.laplace_derivatives import RowTerms, Terms
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import Effects, scale
from jaxglmm.runtime.arrays import jnp, jvp, jvp_rows, lax, put
from jaxglmm.runtime.compile import stored


@stored(static=("marginal",), host=True)
def slope(
    marginal: AbstractMarginal, problem: GeneralisedProblem, psi: Array, u: Effects
) -> Float[Array, " k"]:
    """The gradient of -2 log-likelihood at psi, u next to its mode."""
    return marginal.derivatives(problem, psi, u).score


@stored(static=("marginal",), host=True)
def looked(
    marginal: AbstractMarginal, problem: GeneralisedProblem, psi: Array, u: Effects
) -> tuple[Array, Float[Array, " k"], Effects]:
    """-2 log-likelihood at psi, its gradient and the mode, u next to it.

    Infinite where the mode was not found.
    """
    at = marginal.derivatives(problem, psi, u)
    value = jnp.where(at.nu < AT_MODE, at.value, jnp.inf) if u else at.value
    return value, at.score, at.u


@stored(host=True)
def effects_at(
    problem: GeneralisedProblem, psi: Array, u: Effects
) -> tuple[Effects, Array]:
    """Random effects b = Lambda u, and the linear predictors of the rows."""
    beta, theta, _ = problem.split(psi)
    b = scale(problem.lambdas(theta), u) if u else ()
    return b, _point.predictor(problem, beta, b)


@stored(static=("marginal",), host=True)
def hessian(
    marginal: AbstractMarginal, problem: GeneralisedProblem, psi: Array, u: Effects
) -> Float[Array, "k k"]:
    """The exact Hessian of -2 log-likelihood at an optimum, u its mode.

    Forward mode over the analytic score, after one Newton step that carries the mode's
    derivative. Laplace's score meets the rows at one eta alone, so the family's
    derivatives are taken once there and serve all directions.
    """
    if not u:
        return _symmetric(_columns(partial(_fixed_score, problem), psi))
    if isinstance(marginal, Exact):
        cp = marginal.over(problem)
        known = _columns(lambda x: marginal.score(cp, x, u), psi)
        return _symmetric(known)
    folded = problem.folded()
    terms = marginal.terms(folded)
    if not marginal.beyond:
        terms = _tangents(folded, terms, psi, u)

    def score(x: Array) -> Array:
        moved = newton_step(folded, terms, x, u)
        return marginal.at(folded, terms, x, moved, always=True).score

    return _symmetric(_columns(score, psi))


def _fixed_score(problem: GeneralisedProblem, psi: Array) -> Array:
    return _fixed_only.derivatives(problem, psi).score


def _columns(score: Any, psi: Array) -> Array:
    """Derivatives of the score, one direction after another.

    One by one: no batched LAPACK call waits for another.
    """

    def along(direction: Array) -> Array:
        return jvp(score, (psi,), (direction,))[1]

    return lax.map(along, jnp.eye(len(psi), dtype=psi.dtype))


def _symmetric(H: Array) -> Array:
    return (H + H.T) / 2


def newton_step(
    problem: GeneralisedProblem, terms: Terms, psi: Array, u: Effects
) -> Effects:
    """One undamped Newton step towards the mode, differentiable in psi."""
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    r = terms(_point.predictor(problem, beta, scale(lam, u)), phi)
    return _laplace.newton_update(problem, lam, r.w, r.s, u)


def _tangents(
    problem: GeneralisedProblem, terms: Terms, psi: Array, u: Effects
) -> Terms:
    """The terms at (psi, u) with their first derivatives, as a function of the first.

    Equal to ``terms`` in value and first derivative at that point, and nowhere else;
    of second derivatives in phi, which are not in the score, in value alone.
    """
    beta, theta, phi = problem.split(psi)
    eta = _point.predictor(problem, beta, scale(problem.lambdas(theta), u))
    K = problem.predictors.K
    units = [jnp.ones_like(eta)]
    if K > 1:
        units = [put(jnp.zeros_like(eta), k, 1.0) for k in range(K)]
    here, *in_eta = _derivatives(lambda x: terms(x, phi), eta, units)
    in_phi = [
        jvp_rows(lambda x: terms(eta, x), (phi,), (unit,))[1]
        for unit in jnp.eye(len(phi), dtype=eta.dtype)
    ]

    def near(x: Array, new_phi: Array) -> RowTerms:
        change = x - eta
        steps = [change] if K == 1 else list(change)
        steps += [new_phi[j] - phi[j] for j in range(len(phi))]

        def move(value: Array, *derivatives: Array) -> Array:
            if value.ndim == 0:  # a sum over the rows that eta does not enter
                derivatives, moves = derivatives[K:], steps[K:]
            else:
                moves = steps
            out = value
            for d, step in zip(derivatives, moves, strict=True):
                out = out + d * step
            return out

        return jax.tree.map(move, here, *in_eta, *in_phi)

    return near


def _derivatives(f: Any, x: Array, units: list[Array]) -> list[Any]:
    """f(x) and its derivatives along some directions."""
    value, first = jvp_rows(f, (x,), (units[0],))
    return [value, first, *(jvp_rows(f, (x,), (unit,))[1] for unit in units[1:])]
