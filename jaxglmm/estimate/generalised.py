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

import equinox as eqx
import jax
import numpy as np

from jaxglmm import _arguments
from jaxglmm._typing import Array, Count, Float, Int, Scalar
from jaxglmm.estimate import search as _search
from jaxglmm.estimate.start_generalised import start
from jaxglmm.integrate import fixed_only as _fixed_only
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate import quadrature as _quadrature
from jaxglmm.integrate import second_order as _second_order
from jaxglmm.integrate.laplace_derivatives import Point, Terms
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import newton
from jaxglmm.numerics.system import Effects, inner_all, scale
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.compile import jit, stored

MOVED = 1e-3  # change of -2 log-likelihood by doubled nodes that is small enough
AT_MODE = 1e-8  # decrement of u up to which quadrature takes it for the mode


class LaplaceMarginal(eqx.Module):
    """Integrate u out by Laplace; nodes > 1: adaptive Gauss-Hermite (one factor).

    hessian: information of the rows in log|M|; nodes: a dimension, 0 for as many as are
    needed (``fit_auto``); order: 2 for the second-order approximation (independent
    scalar effects). ``applicable`` says where the last two do not apply.
    """

    hessian: str = eqx.field(static=True, default="observed")
    nodes: int = eqx.field(static=True, default=1)
    order: int = eqx.field(static=True, default=1)

    def __repr__(self) -> str:
        """As a preset is typed."""
        if self.nodes != 1:
            return f"jg.AGQ({self.nodes or 'auto'!r})"
        given = [f"hessian={self.hessian!r}"] if self.hessian != "observed" else []
        given += [f"order={self.order}"] if self.order != 1 else []
        return f"jg.Laplace({', '.join(given)})"

    @property
    def beyond(self) -> bool:
        """Whether more than Laplace's approximation is asked for."""
        return self.nodes != 1 or self.order > 1

    def terms(self, problem: GeneralisedProblem) -> Terms:
        """The function of the rows that ``at`` takes."""
        return _point.terms_of(problem, self.hessian)  # pyright: ignore[reportArgumentType]

    def at(
        self,
        problem: GeneralisedProblem,
        terms: Terms | None,
        psi: Array,
        u: Effects,
        exact: Any = True,
        always: bool = False,
        rule: Array | None = None,
    ) -> Point:
        """Everything at (psi, u) of a folded problem, without the constant.

        Beyond Laplace the point counts next to the mode alone, unless ``always``. rule:
        which of ``quadrature.rules``, in place of ``nodes``.
        """
        found = _point.evaluate(problem, terms, psi, u, exact, self.hessian)  # pyright: ignore[reportArgumentType]
        if not self.beyond:
            return found

        def better() -> tuple[Scalar, Array]:
            if self.order > 1:
                new = _second_order.improve(problem, terms, psi, found, u)  # pyright: ignore[reportArgumentType]
            else:
                new = _quadrature.improve(
                    problem,
                    terms,
                    psi,
                    found,
                    u,  # pyright: ignore[reportArgumentType]
                    self.nodes,
                    rule,
                )
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


@stored(host=True)
def fit_numbers(
    marginal: LaplaceMarginal,
    problem: GeneralisedProblem,
    eta: Float[Array, " n"],
    numbers: Float[Array, " k"],
) -> tuple[Float[Array, " s"], Float[Array, " n"]]:
    """``fit_compiled`` with few arrays in and out, for each of them costs time.

    numbers: phi, tol, max_steps. Returns the leaves of ``GeneralisedFitted`` but eta
    end to end, and eta; ``unpack`` puts them back.
    """
    phi, tol, max_steps = numbers[:-2], numbers[-2], numbers[-1].astype(int)
    psi, u = start(problem, eta, phi)
    found = fit_from(marginal, problem, psi, u, tol, max_steps)
    rest = eqx.tree_at(lambda f: f.eta, found, None)
    flat = [jnp.ravel(x).astype(numbers.dtype) for x in jax.tree.leaves(rest)]
    return jnp.concatenate(flat), found.eta


@stored(host=True)
def refit_numbers(
    marginal: LaplaceMarginal,
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    u: Effects,
    numbers: Float[Array, " 2"],
) -> tuple[Float[Array, " s"], Float[Array, " n"]]:
    """``fit_numbers`` from psi and u; numbers: tol, max_steps."""
    found = fit_from(marginal, problem, psi, u, numbers[0], numbers[1].astype(int))
    rest = eqx.tree_at(lambda f: f.eta, found, None)
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


def applicable(problem: GeneralisedProblem, marginal: LaplaceMarginal) -> str | None:
    """Why quadrature or second order cannot be used for a model; None where it can."""
    sides = problem.sides
    if not marginal.beyond or not sides:
        return None
    q = sides[0]
    second = marginal.order > 1
    several = problem.predictors.K > 1
    name = "the second-order approximation" if second else "adaptive quadrature"
    if len(sides) > 1:
        return (
            f"{name} needs one grouping factor, for it integrates over one level after "
            f"the other; this model has {len(sides)}. Use Laplace's approximation"
        )
    if marginal.hessian != "observed":
        return f"{name} is centred by the observed information, not the expected one"
    if second:
        if several:
            return f"{name} is for models of one linear predictor. Use quadrature"
        if marginal.nodes != 1:
            return "the second-order approximation has no nodes; leave nodes=1"
        if q > 1:
            return (
                f"{name} is for one random effect a level; this model has {q}. "
                "Use quadrature or Laplace's approximation"
            )
        return None
    if q > _arguments.SIDES:
        return (
            f"{name} is for up to {_arguments.SIDES} random effects a level, "
            f"for its nodes are a power of their number; this model has {q}. "
            "Use Laplace's approximation"
        )
    total = marginal.nodes**q
    if total > _arguments.RULE:
        return (
            f"{marginal.nodes} nodes in each of {q} dimensions are {total} a "
            f"level, more than {_arguments.RULE}. Use fewer"
        )
    return None


class Chosen(eqx.Module):
    """A fit by as many nodes as were needed.

    marginal: with these nodes; moved: what doubling them changed last in -2
    log-likelihood.
    """

    marginal: LaplaceMarginal
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
    return Chosen(LaplaceMarginal("observed", counts[int(rule)]), fitted, moved)


@stored(host=True)
def _fit_auto(
    problem: GeneralisedProblem, eta: Array, phi: Array, tol: Scalar, max_steps: Count
) -> tuple[GeneralisedFitted, Count, Scalar]:
    marginal = LaplaceMarginal("observed", 0)
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
        new = eqx.tree_at(lambda f: f.steps, new, found.steps + new.steps)
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
    terms = marginal.terms(folded) if marginal.beyond else None

    def evaluate(x: Array, mode: Effects, exact: Array) -> Point:
        return marginal.at(folded, terms, x, mode, exact)

    near = AT_MODE if marginal.beyond else None
    found = _search.minimise(folded, evaluate, psi, u, tol, max_steps, near)
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


__all__ = [
    "GeneralisedFitted",
    "LaplaceMarginal",
    "fit_compiled",
    "fit_numbers",
    "inner_all",
    "shapes",
    "unpack",
]
