"""Generalised linear mixed models: Laplace or quadrature, maximised.

Start: beta by weighted least squares without random effects, theta by moments of the
working score, phi as the family suggests (``estimate.start_generalised``). Then
``estimate.search``: a damped Newton method for (beta, theta, phi) and the mode
together, in one loop with one evaluation a step. Without random effects the likelihood
itself is maximised by ``numerics.newton``.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from jaxglmm._typing import Array, Count, Float, Int, Scalar
from jaxglmm.estimate import search as _search
from jaxglmm.estimate import search_steps
from jaxglmm.estimate.start_generalised import start
from jaxglmm.integrate import fixed_only as _fixed_only
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate import quadrature as _quadrature
from jaxglmm.integrate.base import AT_MODE, AbstractMarginal
from jaxglmm.integrate.laplace_derivatives import Point
from jaxglmm.integrate.quadrature import AdaptiveQuadrature
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import newton
from jaxglmm.numerics.system import Effects, scale
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.compile import jit, stored
from jaxglmm.runtime.levels import whole
from jaxglmm.runtime.trees import Module, tree_at

CLOSE = 1e-6  # decrement of u at a step of several predictors, far from quadratic
MANY, CLOSE_LEVEL = 1_000, 1e-4  # levels that are many, and what counts for one then
MOVED = 1e-3  # change of -2 log-likelihood by doubled nodes that is small enough


class GeneralisedFitted(Module):
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
    marginal: AbstractMarginal,
    problem: GeneralisedProblem,
    eta: Float[Array, " n"],
    phi: Float[Array, " r"],
    tol: Scalar,
    max_steps: Count,
) -> GeneralisedFitted:
    """The one jit boundary of a fit."""
    psi, u = start(problem, eta, phi)
    return fit_from(marginal, problem, psi, u, tol, max_steps)


@stored(host=True)
def fit_numbers(
    marginal: AbstractMarginal,
    problem: GeneralisedProblem,
    eta: Float[Array, " n"],
    numbers: Float[Array, " k"],
) -> tuple[Float[Array, " s"], Float[Array, " n"]]:
    """``fit_compiled`` with few arrays in and out, for each of them costs time.

    numbers: phi, tol, max_steps, enough (``search.minimise``). Returns the leaves of
    ``GeneralisedFitted`` but eta end to end, and eta; ``unpack`` puts them back.
    """
    phi, (tol, max_steps, enough) = numbers[:-3], numbers[-3:]
    psi, u = start(problem, eta, phi)
    found = fit_from(marginal, problem, psi, u, tol, max_steps.astype(int), enough)
    rest = tree_at(lambda f: f.eta, found, None)
    rest = whole(rest, getattr(problem.rows, "mesh", None))
    flat = [jnp.ravel(x).astype(numbers.dtype) for x in jax.tree.leaves(rest)]
    return jnp.concatenate(flat), found.eta


@stored(host=True)
def refit_numbers(
    marginal: AbstractMarginal,
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    u: Effects,
    numbers: Float[Array, " 2"],
) -> tuple[Float[Array, " s"], Float[Array, " n"]]:
    """``fit_numbers`` from psi and u; numbers: tol, max_steps."""
    found = fit_from(marginal, problem, psi, u, numbers[0], numbers[1].astype(int))
    rest = tree_at(lambda f: f.eta, found, None)
    rest = whole(rest, getattr(problem.rows, "mesh", None))
    flat = [jnp.ravel(x).astype(numbers.dtype) for x in jax.tree.leaves(rest)]
    return jnp.concatenate(flat), found.eta


def shapes(problem: GeneralisedProblem) -> tuple[tuple[int, ...], ...]:
    """Of psi, u and b, as ``fit_numbers`` puts them end to end."""
    k = problem.p + problem.m + problem.family.n_phi
    sizes = zip(problem.sides, problem.rows.sizes, strict=True)
    effects = tuple((q, 1, J) for q, J in sizes)
    return ((k,), *effects, *effects)


def unpack(
    shapes: tuple[tuple[int, ...], ...], flat: np.ndarray, eta: np.ndarray
) -> GeneralisedFitted:
    """What ``fit_numbers`` returned, as NumPy."""
    parts, start = [], 0
    for shape in shapes:
        size = math.prod(shape)
        parts.append(flat[start : start + size].reshape(shape))
        start += size
    criterion, decrement, steps, status = flat[start:].tolist()
    leaves = [*parts, eta, np.float64(criterion), np.float64(decrement)]
    leaves += [np.int64(steps), np.int64(status)]
    return jax.tree.unflatten(_structure(len(shapes) // 2), leaves)


@cache
def _structure(n_factors: int) -> Any:
    number: Any = 0.0
    effects = (number,) * n_factors
    one = GeneralisedFitted(number, effects, effects, *(number,) * 5)
    return jax.tree.structure(one)


class Chosen(Module):
    """A fit by as many nodes as were needed.

    marginal: with these nodes; moved: what doubling them changed last in -2
    log-likelihood.
    """

    marginal: AbstractMarginal
    fitted: GeneralisedFitted
    moved: Scalar


def fit_auto(
    problem: GeneralisedProblem,
    eta: Float[Array, " n"],
    phi: Float[Array, " r"],
    tol: Scalar,
    max_steps: Count,
) -> Chosen:
    """Fit by quadrature, nodes doubled until that moves d by under ``MOVED``.

    A host function around one program: the number of nodes is a variable in it. What
    follows a fit (``hessian``, profiles) takes ``Chosen.marginal``.
    """
    fitted, rule, moved = _fit_auto(problem, eta, phi, tol, max_steps)
    counts = _quadrature.AUTO[problem.sides[0]]
    return Chosen(AdaptiveQuadrature(counts[int(rule)]), fitted, moved)


@stored(host=True)
def _fit_auto(
    problem: GeneralisedProblem, eta: Array, phi: Array, tol: Scalar, max_steps: Count
) -> tuple[GeneralisedFitted, Count, Scalar]:
    marginal = AdaptiveQuadrature(0)
    folded = problem.folded()
    terms = marginal.terms(folded)
    last = len(_quadrature.AUTO[problem.sides[0]]) - 1

    def body(state: tuple) -> tuple:
        rule, found, _ = state

        def evaluate(x: Array, mode: Effects, exact: Array) -> Point:
            return marginal.at(folded, terms, x, mode, exact, rule=rule)

        new = _search.minimise(
            folded, evaluate, found.psi, found.u, tol, max_steps, AT_MODE
        )
        new = tree_at(lambda f: f.steps, new, found.steps + new.steps)
        return rule + 1, new, jnp.abs(new.value - found.value)

    def going(state: tuple) -> Array:
        rule, _, moved = state
        return (rule <= last) & ~(moved < MOVED)

    psi, u = start(problem, eta, phi)
    infinite = jnp.asarray(jnp.inf, psi.dtype)
    zero = jnp.asarray(0)
    first = _search.Found(psi, u, infinite, infinite, zero, zero)
    rule, found, moved = lax.while_loop(going, body, (zero, first, infinite))
    return _fitted(problem, folded, found), rule - 1, moved


def fit_from(
    marginal: AbstractMarginal,
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    u: Effects,
    tol: Scalar | float,
    max_steps: Count | int,
    enough: Scalar | float = 0.0,
) -> GeneralisedFitted:
    """Maximise from psi and u; enough: as in ``search.minimise``."""
    if not u:
        return _fit_fixed_only(problem, psi, tol, max_steps)
    folded = problem.folded()
    terms = marginal.terms(folded) if marginal.beyond else None

    def evaluate(x: Array, mode: Effects, exact: Array) -> Point:
        return marginal.at(folded, terms, x, mode, exact)

    near = AT_MODE if marginal.beyond else None
    if near is None and problem.predictors.K > 1:
        levels = sum(problem.rows.sizes)
        near = CLOSE if levels < MANY else CLOSE_LEVEL * levels
    found = _search.minimise(folded, evaluate, psi, u, tol, max_steps, near, enough)
    return _fitted(problem, folded, found)


def _fitted(
    problem: GeneralisedProblem, folded: GeneralisedProblem, found: _search.Found
) -> GeneralisedFitted:
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

    family = problem.family
    found = newton.minimise_carrying(
        evaluate,
        psi,
        None,
        tol,
        max_steps,
        secant=True,
        within=partial(search_steps.within, family),
        free=partial(search_steps.free, family),
    )
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
