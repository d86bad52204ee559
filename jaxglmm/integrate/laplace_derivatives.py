"""Laplace's approximation next to the mode: everything of one point in one pass.

At (beta, Lambda, phi) and an u that need not be the mode, with s = dl/deta, w = -d2l/
deta2, w1 = dw/deta, M = Lambda'Z'WZ Lambda + I, N = Lambda M^-1 Lambda',

    t = Z's,  B = Z'WX,  h = u - Lambda't,  delta = -M^-1h,  nu = h'M^-1h,
    a = w1 z'N z (leverages),  m = N Z'a,  c = Z'a - Z'WZ m,  t^ = t - Z'WZ Lambda delta

    d = -2 sum l + u'u - nu + log|M| + (Lambda delta)'Z'a
    dd/dbeta = X'(a - 2 s) + B'(2 Lambda delta - m)
    dd = tr(G dSigma),  G = S - t^t^' + (c t^' + t^c') / 2,  S the sum of the diagonal
    blocks of Z'V^-1Z,  V = W^-1 + Z Sigma Z'

At the mode (delta = 0) these are the value and the exact score (Kristensen et al. 2016
give the general form); elsewhere the value is right to the order of nu. The score has
the form of a linear mixed model's with weights w plus what the movement of w adds, and
the curvature is that model's average information with the boundary term of
``integrate.exact``.

M takes the observed information, so the approximation is Laplace's; "expected" takes
Fisher's, as lme4 does, which differs for links that are not canonical. Where observed
information is negative its absolute value serves for steps to the mode; the
approximation itself needs the truth (``exact``). The curvature takes the larger of
observed and Fisher's information there, for it has to be positive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxglmm._typing import Array, Bool, Float, Scalar
from jaxglmm.integrate import pieces
from jaxglmm.integrate.exact import boundary, directions
from jaxglmm.integrate.row_terms import Hessian, RowTerms, Terms, terms_of
from jaxglmm.integrate.row_terms import constant as constant
from jaxglmm.integrate.row_weights import positive_weights, step_weights
from jaxglmm.model.covariances.base import (
    jacobian,
    pack,
    pulled,
    pushed,
    triangles,
)
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import spd
from jaxglmm.numerics.system import (
    AbstractFactor,
    AbstractSystem,
    Effects,
    Lambdas,
    at_least,
    inner,
    inner_all,
    scale,
    scale_transposed,
)
from jaxglmm.runtime.arrays import block_diag, jnp, lax
from jaxglmm.runtime.trees import Module


class Point(Module):
    """What is known at (psi, u); see the head of this module.

    value: d without ``constant``; score (k,), curvature (k, k) positive semidefinite
    but for rounding, scale (k,) of its damping; nu: decrement of u in all; level: -2 l
    + u'u a level (one factor) or in all; valid: whether M is the true one.

    step: delta; mode: u + delta; t: t^; slopes: Z' of minus ds in (beta, phi), so that
    the mode's move with psi follows (``moved``); J: of Lambda's entries in theta, None
    where they are the same; eta and rows: of the rows at u, None
    where they were visited in pieces.
    """

    value: Scalar
    score: Float[Array, " k"]
    curvature: Float[Array, "k k"]
    scale: Float[Array, " k"]
    nu: Scalar
    level: Array
    valid: Bool[Array, ""]
    step: Effects
    mode: Effects
    t: Effects
    slopes: Effects
    lam: Lambdas
    J: Array | None
    factor: AbstractFactor
    eta: Array | None
    rows: RowTerms | None


def evaluate(
    problem: GeneralisedProblem,
    terms: Terms | None,
    psi: Float[Array, " k"],
    u: Effects,
    exact: Bool[Array, ""] | bool = True,
    hessian: Hessian = "observed",
) -> Point:
    """The formulas of this module's head; problem in its folded form.

    terms: None for the problem's own, which are computed again rather than kept where
    the rows are visited in pieces.
    """
    p = problem.p
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    kept = lam if len(lam) == 1 else at_least(lam)
    at = _Visits(problem, terms, beta, phi, scale(lam, u), hessian)
    one, factor, valid, negative = at.opened(exact, kept, levels=len(u))
    t, B = tuple(x[:, :1] for x in one.sums), tuple(x[:, 1:] for x in one.sums)
    h = tuple(a - b for a, b in zip(u, scale_transposed(lam, t), strict=True))
    step, squares = factor.newton(h)
    delta = tuple(-x for x in step)
    nu = sum(jnp.sum(x) for x in squares)
    move = scale(lam, delta)

    inside = factor if one.inside is None else one.inside.factor(kept)
    selected = inside.selected()

    Za, direct, own = at.summed(at.second(inside, selected))
    m = through(factor, kept, Za)
    both = factor.system.normal(
        tuple(jnp.concatenate([x, y], axis=1) for x, y in zip(m, move, strict=True))
    )
    c = tuple(x - y[:, :1] for x, y in zip(Za, both, strict=True))
    t = tuple(x - y[:, 1:] for x, y in zip(t, both, strict=True))
    back = tuple(2 * x - y for x, y in zip(move, m, strict=True))

    squares = [jnp.sum(x * x) for x in u]
    traces = inside.traces(selected)
    value = -2 * one.l + sum(squares) - nu + inside.log_det()
    value = value + inner_all(move, Za)[0, 0] - raised(traces, lam, kept)
    if one.apart is not None:
        value = value - 2 * one.apart
        own = [x - 2 * y for x, y in zip(own, one.dapart, strict=True)]
    carried = inner_all(B, back)[:, 0]
    direct = jnp.concatenate([direct, jnp.stack(own)]) if own else direct
    slope = direct + carried
    G = tuple(
        S - inner_levels(x, x) + 0.5 * (inner_levels(y, x) + inner_levels(x, y))
        for S, x, y in zip(traces, t, c, strict=True)
    )
    J, theta_score, edge, v = over_theta(problem, theta, lam, G, t)
    score = jnp.concatenate([slope[:p], theta_score, slope[p:]])

    across = tuple(x[:, : len(one.square)] for x in B)

    outer = factor
    Q, T = factor.project(across, one.square)
    crossed = problem.predictors.K > 1 and len(Q) > p
    if crossed or not problem.family.is_log_concave:

        def better() -> tuple[AbstractFactor, Array, Effects]:
            system, ahead, square = at.summed(at.larger)
            new = system.factor(kept)
            return new, *new.project(across if ahead is None else ahead, square)

        if problem.predictors.K > 1:  # rows may be negative whose sum is not
            negative = negative | crossed
            negative = negative & ~jnp.isfinite(jnp.sum(spd.cholesky(Q)))
        outer, Q, T = lax.cond(negative, better, lambda: (factor, Q, T))
    info = outer.gram(v)
    cross = jnp.sqrt(2.0) * inner_all(T, v)
    H, size = _assembled(2 * Q, cross, info, edge, one.ddl if own else (), p)
    return Point(
        value,
        score,
        H,
        size,
        nu,
        _deviance(u, squares, one),
        valid,
        delta,
        tuple(x + y for x, y in zip(u, delta, strict=True)),
        t,
        B,
        lam,
        J,
        factor,
        *(at.known or (None, None)),
    )


class _Visits:
    """The rows of a point: visited at once, or again for each sum where in pieces."""

    def __init__(
        self,
        problem: GeneralisedProblem,
        terms: Terms | None,
        beta: Array,
        phi: Array,
        b: Effects,
        hessian: Hessian,
    ) -> None:
        self.problem, self.terms, self.hessian = problem, terms, hessian
        self.beta, self.phi, self.b = beta, phi, b
        self.known: tuple[Array, RowTerms] | None = None
        self.valid: Any = True  # whether M is the true one, as far as is known
        self.whole = terms is not None or pieces.count(problem) == 1
        if self.whole:
            self.known = self.rows_of(problem)

    def rows_of(self, part: GeneralisedProblem) -> tuple[Array, RowTerms]:
        """eta and its terms."""
        if self.known is not None:
            return self.known
        eta = predictor(part, self.beta, self.b)
        return eta, (self.terms or terms_of(part, self.hessian))(eta, self.phi)

    def summed(self, sums: Callable[..., Any]) -> Any:
        """Sums over all rows."""
        return sums(self.problem) if self.whole else pieces.summed(self.problem, sums)

    def opened(
        self, exact: Bool[Array, ""] | bool, kept: Lambdas, levels: int
    ) -> tuple[_First, AbstractFactor, Bool[Array, ""], Bool[Array, ""]]:
        """``first`` with its factor, by the true weights where these are positive.

        Also whether M is the true one, and whether it is so with weights below zero.
        """
        model, negative = self.problem.predictors, jnp.asarray(False)
        if self.problem.family.has_canonical_link:
            one = self.summed(self.first)
            return one, one.system.factor(kept), ~negative, negative

        def true(part: GeneralisedProblem) -> tuple[_First, Array]:
            return self.first(part), jnp.sum(model.below(self.rows_of(part)[1].w))

        one, below = self.summed(true)
        factor = one.system.factor(kept)
        valid = exact | (below == 0)
        if model.K > 1 and levels:
            valid = valid | is_positive(factor)
        self.valid = valid

        def other() -> tuple[_First, AbstractFactor]:
            new = self.summed(self.first)
            return new, new.system.factor(kept)

        if exact is not True:
            one, factor = lax.cond(valid, lambda: (one, factor), other)
        return one, factor, valid, valid & (below > 0)

    def weights(self, part: GeneralisedProblem, eta: Array, r: RowTerms) -> Array:
        """Those of M: true, or what serves for a step."""
        if self.problem.family.has_canonical_link:
            return r.w
        if self.valid is True:
            return r.w
        return jnp.where(self.valid, r.w, step_weights(part, eta, self.phi, r.w))

    def first(self, part: GeneralisedProblem) -> _First:
        """What M is made of."""
        eta, r = self.rows_of(part)
        w, rows, X = self.weights(part, eta, r), part.rows, part.X
        model = self.problem.predictors
        square = model.gram(X, jnp.abs(w) if model.K == 1 else w)
        return _First(
            rows.weigh(w),
            rows.weigh(r.v) if self.hessian == "expected" else None,
            rows.collect([r.s, *model.weighted(X, w), *(-x for x in r.ds)]),
            jnp.sum(r.l),
            rows.level_sum(r.l) if len(self.b) == 1 else None,
            _with_phi(square, [-model.total(X, x) for x in r.ds], r.info),
            r.ddl,
            r.apart,
            r.dapart,
        )

    def second(self, inside: AbstractFactor, selected: Any) -> Callable[..., Any]:
        """What needs the leverages: Z'a, X'(a - 2 s) and the scores of phi."""
        model = self.problem.predictors

        def sums(part: GeneralisedProblem) -> tuple[Effects, Array, list[Array]]:
            r = self.rows_of(part)[1]
            lev = part.rows.leverages(inside, selected)
            a = model.carried(r.w1 if r.v1 is None else r.v1, lev)
            dw = r.dw if r.v is None else r.dv
            own = [model.moved(x, lev, y) for x, y in zip(r.dl, dw, strict=True)]
            return part.rows.collect([a]), model.total(part.X, a - 2 * r.s), own

        return sums

    def larger(self, part: GeneralisedProblem) -> tuple[Any, Effects | None, Array]:
        """M, Z'WX and X'WX with the larger of observed and Fisher's information.

        Where phi is among the first columns, it is so by itself.
        """
        eta, r = self.rows_of(part)
        model = self.problem.predictors
        new = positive_weights(part, eta, self.phi, self.weights(part, eta, r))
        square, columns = model.gram(part.X, new), model.weighted(part.X, new)
        if r.info:
            columns += [jnp.zeros_like(x) for x in r.ds]
            square = block_diag(
                square,
                jnp.diag(_sizes([row[i] for i, row in enumerate(r.info)])),
            )
        ahead = part.rows.collect(columns) if columns else None
        return part.rows.weigh(new), ahead, square


def over_theta(
    problem: Any,
    theta: Array,
    lam: Lambdas,
    G: tuple[Array, ...],
    t: Effects,
) -> tuple[Array | None, Array, Array, Effects]:
    """How entries of Lambda move with theta, the score, 2 G+ and dSigma/dtheta t.

    problem: whatever has ``covariances``.
    """
    own = problem.covariances
    J = jacobian(theta, own)
    score = 2 * pulled(J, pack([g @ x for g, x in zip(G, lam, strict=True)], own))
    return J, score, boundary(G, own, J), directions(problem, lam, t, J)


def is_positive(factor: AbstractFactor) -> Bool[Array, ""]:
    """Whether a matrix that was factored is positive definite."""
    return jnp.isfinite(factor.log_det())


def where_positive(own: AbstractFactor, other: AbstractFactor) -> AbstractFactor:
    """The first factor where its matrix is positive definite, else the other."""
    ok = is_positive(own)
    return jax.tree.map(lambda a, b: jnp.where(ok, a, b), own, other)


def _assembled(
    Q: Array, cross: Array, info: Array, edge: Array, ddl: tuple[Array, ...], p: int
) -> tuple[Array, Array]:
    """The curvature in (beta, theta, phi) and its scale; phi may be in Q, after p."""
    H = jnp.block([[Q, cross], [cross.T, info + edge]])
    diagonal = jnp.concatenate([spd.diagonal(Q), 1 + spd.diagonal(info)])
    if len(Q) > p:  # phi is among the first columns, and the last in psi
        order = np.r_[:p, len(Q) : len(H), p : len(Q)]
        return H[order][:, order], diagonal[order]
    if not ddl:
        return H, diagonal
    size = 2 * _sizes([-x for x in ddl])
    return block_diag(H, jnp.diag(size)), jnp.concatenate([diagonal, size])


def _sizes(info: list[Array]) -> Array:
    """Information of dispersion parameters one by one, made positive."""
    seen = jnp.stack(info)
    return jnp.maximum(seen, 0.05 + 0.1 * jnp.abs(seen))


LEAST_INFO = 1e-6  # of a dispersion parameter that has none, to be divided by


def _with_phi(
    square: Array, across: list[Array], info: tuple[tuple[Array, ...], ...]
) -> Array:
    """X'WX, with rows and columns for phi where their information is known."""
    if not info:
        return square
    XP = jnp.stack(across, axis=1)
    own = jnp.stack([jnp.stack(row) for row in info])
    own = own + LEAST_INFO * np.eye(len(own))
    return jnp.block([[square, XP], [XP.T, own]])


class _First(Module):
    """Sums of the rows that M is made of.

    square: X'|W|X, with phi of a family that ``has_joint_information``; ddl: as in
    ``RowTerms``, as apart and dapart.
    """

    system: AbstractSystem
    inside: AbstractSystem | None
    sums: Effects
    l: Scalar
    level: Array | None
    square: Float[Array, "p p"]
    ddl: tuple[Array, ...]
    apart: Array | None
    dapart: tuple[Array, ...]


def _deviance(u: Effects, squares: list[Array], one: _First) -> Array:
    """-2 l + u'u a level (one factor) or in all (several)."""
    if one.level is not None:
        return jnp.sum(u[0][:, 0] ** 2, axis=0) - 2 * one.level
    return sum(squares) - 2 * one.l


def moved(
    problem: GeneralisedProblem, at: Point, change: Float[Array, " k"]
) -> Effects:
    """The mode where psi has changed, to first order."""
    dbeta, dtheta, dphi = problem.split(change)
    dlam = triangles(pushed(at.J, dtheta), problem.covariances)
    along = jnp.concatenate([dbeta, dphi])
    shifted = at.factor.system.normal(scale(dlam, at.mode))
    pulled = tuple(
        jnp.sum(B * along[None, :, None], axis=1, keepdims=True) + x
        for B, x in zip(at.slopes, shifted, strict=True)
    )
    right = tuple(
        x - y
        for x, y in zip(
            scale_transposed(at.lam, pulled), scale_transposed(dlam, at.t), strict=True
        )
    )
    change_u = at.factor.solve(right)
    return tuple(x - y for x, y in zip(at.mode, change_u, strict=True))


def predictor(
    problem: GeneralisedProblem, beta: Float[Array, " p"], b: Effects
) -> Array:
    """offset + X beta + Z b, (n,), or (K, n) of several predictors."""
    rest = problem.offset + problem.rows.spread(b)
    return problem.predictors.values(problem.X, beta, rest)


def inner_levels(a: Float[Array, "q 1 J"], b: Float[Array, "q 1 J"]) -> Array:
    """Sum over the levels of a b', (q, q)."""
    return inner(jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1))


def raised(traces: tuple[Array, ...], lam: Lambdas, kept: Lambdas) -> Scalar | float:
    """What log |M| gained, to first order, where ``at_least`` raised a diagonal.

    Without it the value does not follow the score next to a variance of zero, and no
    step is good enough.
    """
    if kept is lam:
        return 0.0
    return sum(
        jnp.sum(S * (x @ x.T - y @ y.T))
        for S, x, y in zip(traces, kept, lam, strict=True)
    )


def through(factor: AbstractFactor, lam: Lambdas, v: Effects) -> Effects:
    """Lambda M^-1 Lambda'v."""
    return scale(lam, factor.solve(scale_transposed(lam, v)))
