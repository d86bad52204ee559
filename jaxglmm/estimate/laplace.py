"""Generalised linear mixed models: Laplace or quadrature, maximised.

Start: beta by weighted least squares without random effects, theta by moments of the
working score, phi as the family suggests (``estimate.start_generalised``). Then
``estimate.search``: a damped Newton method for (beta, theta, phi) and the mode
together, in one loop with one evaluation a step. Without random effects the likelihood
itself is maximised by ``numerics.newton``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxglmm._compile import jit
from jaxglmm._typing import Array, Count, Float, Int, Scalar
from jaxglmm.estimate import search as _search
from jaxglmm.estimate.start_generalised import start
from jaxglmm.integrate import fixed_only as _fixed_only
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate import point as _point
from jaxglmm.integrate import quadrature as _quadrature
from jaxglmm.integrate.point import Point, RowTerms, Terms
from jaxglmm.model.generalised import GeneralisedProblem
from jaxglmm.numerics import newton
from jaxglmm.numerics.system import Effects, inner_all, scale

AT_MODE = 1e-8  # decrement of u up to which quadrature takes it for the mode


class LaplaceMarginal(eqx.Module):
    """Integrate u out by Laplace; nodes > 1: adaptive Gauss-Hermite (one factor)."""

    hessian: str = eqx.field(static=True, default="observed")
    nodes: int = eqx.field(static=True, default=1)

    @property
    def beyond(self) -> bool:
        """Whether more than Laplace's approximation is asked for."""
        return self.nodes > 1

    def terms(self, problem: GeneralisedProblem) -> Terms:
        """The function of the rows that ``at`` takes."""
        return _point.terms_of(problem, self.hessian)  # pyright: ignore[reportArgumentType]

    def at(
        self,
        problem: GeneralisedProblem,
        terms: Terms,
        psi: Array,
        u: Effects,
        exact: Any = True,
        always: bool = False,
    ) -> Point:
        """Everything at (psi, u) of a folded problem, without the constant.

        Beyond Laplace the point counts next to the mode alone, unless ``always``.
        """
        found = _point.evaluate(problem, terms, psi, u, exact, self.hessian)  # pyright: ignore[reportArgumentType]
        if not self.beyond:
            return found

        def better() -> tuple[Scalar, Array]:
            new = _quadrature.improve(problem, terms, psi, found, u, self.nodes)
            return new.value, new.score

        if always:
            value, score = better()
        else:
            near = found.nu < AT_MODE
            value, score = lax.cond(near, better, lambda: (found.value, found.score))
        return eqx.tree_at(lambda x: (x.value, x.score), found, (value, score))

    def derivatives(
        self, problem: GeneralisedProblem, psi: Array, u: Effects
    ) -> _laplace.Laplace:
        """Value, score, curvature and the mode."""
        if not u:
            return _fixed_only.derivatives(problem, psi)
        beta, theta, phi = problem.split(psi)
        lam = problem.lambdas(theta)
        mode = _laplace.find_mode(problem, beta, lam, phi, u).u
        folded = problem.folded()
        at = self.at(folded, self.terms(folded), psi, mode, always=True)
        value = at.value + _point.constant(folded)
        return _laplace.Laplace(value, at.score, at.curvature, at.scale, mode)

    def value(self, problem: GeneralisedProblem, psi: Array, u: Effects) -> Scalar:
        """-2 log-likelihood."""
        if not u:
            beta, _, phi = problem.split(psi)
            return _fixed_only.value_at(problem, beta, phi)
        return self.derivatives(problem, psi, u).value


class GeneralisedFitted(eqx.Module):
    """psi: (k,) estimates; u: mode; b: Lambda u; eta: (n,) predictor of each row."""

    psi: Float[Array, " k"]
    u: Effects
    b: Effects
    eta: Float[Array, " n"]
    criterion: Scalar
    decrement: Scalar
    steps: Count
    status: Int[Array, ""]


def zeros(problem: GeneralisedProblem) -> Effects:
    """u = 0."""
    sizes = problem.rows.sizes
    return tuple(
        jnp.zeros((q, 1, J), problem.y.dtype)
        for q, J in zip(problem.sides, sizes, strict=True)
    )


@partial(jit, static_argnums=0)
def fit_compiled(
    marginal: LaplaceMarginal,
    problem: GeneralisedProblem,
    eta: Float[Array, " n"],
    phi: Float[Array, " r"],
    tol: Scalar,
    max_steps: Count,
) -> GeneralisedFitted:
    """The one jit boundary of a fit."""
    psi, u = start(problem, eta, phi)
    return fit_from(marginal, problem, psi, u, tol, max_steps)


def fit_from(
    marginal: LaplaceMarginal,
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    u: Effects,
    tol: Scalar | float,
    max_steps: Count | int,
) -> GeneralisedFitted:
    """Maximise from psi and u."""
    if not u:
        return _fit_fixed_only(problem, psi, tol, max_steps)
    folded = problem.folded()
    terms = marginal.terms(folded)

    def evaluate(x: Array, mode: Effects, exact: Array) -> Point:
        return marginal.at(folded, terms, x, mode, exact)

    near = AT_MODE if marginal.beyond else None
    found = _search.minimise(folded, evaluate, psi, u, tol, max_steps, near)
    beta, theta, _ = problem.split(found.psi)
    b = scale(problem.lambdas(theta), found.u)
    eta = _point.predictor(folded, beta, b)
    return GeneralisedFitted(
        found.psi,
        found.u,
        b,
        problem.rows.unfold(eta),
        found.value + _point.constant(folded),
        found.decrement,
        found.steps,
        found.status,
    )


def _fit_fixed_only(
    problem: GeneralisedProblem, psi: Array, tol: Any, max_steps: Any
) -> GeneralisedFitted:
    def evaluate(x: Array, aux: Any):
        at = _fixed_only.derivatives(problem, x)
        return at.value, at.score, at.curvature, at.scale, aux

    found = newton.minimise_carrying(evaluate, psi, None, tol, max_steps, secant=True)
    beta, _, phi = problem.split(found.x)
    return GeneralisedFitted(
        found.x,
        (),
        (),
        _point.predictor(problem, beta, ()),
        _fixed_only.value_at(problem, beta, phi),
        found.decrement,
        found.steps,
        found.status,
    )


@partial(jit, static_argnums=0)
def hessian(
    marginal: LaplaceMarginal, problem: GeneralisedProblem, psi: Array, u: Effects
) -> Float[Array, "k k"]:
    """The exact Hessian of -2 log-likelihood at an optimum, u its mode.

    Forward mode over the analytic score, after one Newton step that carries the mode's
    derivative. Laplace's score meets the rows at one eta alone, so the family's
    derivatives are taken once there and serve all directions.
    """
    if not u:
        return _symmetric(_columns(partial(_fixed_score, problem), psi))
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
        return jax.jvp(score, (psi,), (direction,))[1]

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

    Equal to ``terms`` in value and first derivative at that point, and nowhere else.
    """
    beta, theta, phi = problem.split(psi)
    eta = _point.predictor(problem, beta, scale(problem.lambdas(theta), u))
    one = jnp.ones_like(eta)
    here, in_eta = jax.jvp(lambda x: terms(x, phi), (eta,), (one,))
    in_phi = [
        jax.jvp(lambda x: terms(eta, x), (phi,), (unit,))[1]
        for unit in jnp.eye(len(phi), dtype=eta.dtype)
    ]

    def near(x: Array, new_phi: Array) -> RowTerms:
        def move(value: Array, d_eta: Array, *d_phi: Array) -> Array:
            if value.shape != eta.shape:  # sums over the rows are not in the score
                return value
            out = value + d_eta * (x - eta)
            for j, d in enumerate(d_phi):
                out = out + d * (new_phi[j] - phi[j])
            return out

        return jax.tree.map(move, here, in_eta, *in_phi)

    return near


__all__ = [
    "GeneralisedFitted",
    "LaplaceMarginal",
    "fit_compiled",
    "hessian",
    "inner_all",
]
