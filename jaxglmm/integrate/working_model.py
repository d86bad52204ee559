"""The Gaussian model that a generalised one is next to its mode.

With w = -d2l/deta2 at the mode (Fisher's information where Laplace's approximation
uses it too), Z'WZ, Z'WX and X'WX say about the random effects and beta what those of a
linear mixed model with weights w and sigma = 1 would: conditional covariances and
regressions of the modes on beta follow by the same functions. Some w may be negative;
at a mode M is positive definite all the same.
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.model.covariances import base
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics.system import Effects, scale
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.compile import stored


@stored(static=("hessian",), fast=False, host=True)
def working(
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    u: Effects,
    hessian: _laplace.Hessian = "observed",
) -> Problem:
    """The linear mixed model at the mode u, its response the working residual s / w."""
    beta, theta, phi = problem.split(psi)
    eta = _laplace.predictor(problem, beta, scale(problem.lambdas(theta), u))
    r = _laplace.rows_at(problem, eta, phi)
    w = r.w
    if hessian == "expected":
        w = problem.family.expected_weight(eta, phi, problem.trials)
        w = jnp.where(problem.weights > 0, problem.weights * w, 0.0)
    X, model = problem.X, problem.predictors
    if model.K == 1:
        B = problem.rows.collect(jnp.concatenate([w * X, r.s[None]]))
        square, Xs = (w * X) @ X.T, X @ r.s
        yy = jnp.sum(r.s**2 / jnp.where(r.step > 0, r.step, 1.0))
    else:
        B = problem.rows.collect([*model.weighted(X, w), r.s])
        square, Xs = model.gram(X, w), model.total(X, r.s)
        yy = jnp.sum(model.solve(r.step, r.s) * r.s)
    top = jnp.concatenate([square, Xs[:, None]], axis=1)
    RR = jnp.concatenate([top, jnp.append(Xs, yy)[None]])
    zero = jnp.zeros(())
    n = jnp.sum(problem.weights > 0).astype(eta.dtype)
    start = base.identity(problem.covariances)
    system = problem.rows.weigh(w)
    return Problem(system, B, RR, n, start, zero, zero, problem.covariances)


@stored(fast=False, host=True)
def beta_information(
    problem: Problem, theta: Float[Array, " m"]
) -> Float[Array, "p p"]:
    """X'V^-1X of such a model: that of beta, random effects integrated out."""
    factor = problem.system.factor(problem.lambdas(theta))
    return factor.project(problem.B, problem.RR)[0][:-1, :-1]


@stored(fast=False, host=True)
def mode_at(problem: GeneralisedProblem, psi: Float[Array, " k"]) -> Effects:
    """The mode u of the random effects at psi, found from zero."""
    beta, theta, phi = problem.split(psi)
    start = tuple(
        jnp.zeros((q, 1, J), problem.y.dtype)
        for q, J in zip(problem.sides, problem.rows.sizes, strict=True)
    )
    return _laplace.find_mode(problem, beta, problem.lambdas(theta), phi, start).u
