"""Adaptive Gauss-Hermite quadrature: one grouping factor, up to three columns.

Around the mode u^_g of a level, with M_g = L_gL_g' its curvature, C_g = L_g'^-1, and
product nodes z_k of weights w_k (probabilists', sum one),

    log L_g = log sum_k exp(log w_k + z_k'z_k / 2 + l_g(u_gk) - u_gk'u_gk / 2) +
    log|C_g|,  u_gk = u^_g + C_g z_k

One node is Laplace's approximation (Pinheiro and Bates 1995). Sums of logarithms, never
products of likelihoods.

The gradient is written out. With pi_k the share of a node in its level, t_k = Z's_k,
kappa_k = Lambda't_k - u_k, what a change of u^ and of C does is

    p = sum_k pi_k kappa_k,   K = sum_k pi_k kappa_k z_k',

M- the derivative of tr(K'C) + log|C| in M, A- = Lambda M- Lambda', a = w1 z'A-z (the
move of the weights with eta at the mode) and y = M^-1 (p + Lambda'Z'a) (that of the
mode), the gradient of the log-likelihood is

    beta:    X'(sum_k pi_k s_k + a) - B'Lambda y
    Lambda:  sum_k pi_k t_k u_k' + Z'a u^' + 2 A Lambda M- + t y' - A Lambda y u^'

with t, A, B as in ``laplace_derivatives``; it is exact where u is the mode. Elsewhere
the value is corrected by (p + Lambda'Z'a)'delta, what the nodes gain by moving to the
mode: with few of them that is of first order, and a step would be judged by it.

One kernel serves one model and lanes of many (``improve``, ``improve_lanes``): it asks
the rows for sums and for what a level says to them (``_OneModel``, ``_Lanes``), and
every matrix of a level is a list of arrays, (J,) or (J, L).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxglmm import _arguments
from jaxglmm._typing import Array, Float
from jaxglmm.integrate import exact_one_factor as crit
from jaxglmm.integrate import laplace_derivatives_lanes as lanes_point
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.laplace_derivatives import Point, Terms
from jaxglmm.integrate.rows_lanes import LaneRows, lanes, levels
from jaxglmm.model.covariances.base import pack, pulled
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.model.predictors import Predictors
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.blocks import BlocksFactor
from jaxglmm.numerics.normal_rule import product_rule
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.arrays import grad_by_level, jnp, lax
from jaxglmm.runtime.trees import Module, field, tree_at

AUTO = {1: (5, 10, 20, 40, 80), 2: (5, 10, 20, 40), 3: (5, 10, 20)}


def rules(q: int) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]:
    """The rules of ``AUTO``, one below the other.

    Returns their nodes a dimension, where each begins and the last ends, all nodes
    (N, q) and all log weights (N,).
    """
    counts = AUTO[q]
    tables = [product_rule(nodes, q) for nodes in counts]
    ends = np.cumsum([0, *(len(grid) for grid, _ in tables)])
    grid = np.concatenate([grid for grid, _ in tables])
    return counts, ends, grid, np.concatenate([w for _, w in tables])


class AdaptiveQuadrature(AbstractMarginal):
    """This rule as a marginal; nodes: a dimension, 0 for as many as are needed."""

    name: ClassVar[str] = "quadrature"

    nodes: int = field(static=True, default=11)  # pyright: ignore[reportIncompatibleVariableOverride]

    def __repr__(self) -> str:
        """As a preset is typed."""
        return f"jg.AGQ({self.nodes or 'auto'!r})"

    @property
    def words(self) -> str:
        """What a summary calls it."""
        return f"adaptive Gauss-Hermite quadrature, {self.nodes} nodes"

    def refusal(self, problem: GeneralisedProblem) -> str | None:
        """For one grouping factor with few columns, and few nodes."""
        several = one_factor(problem, "adaptive quadrature")
        if several or not problem.sides:
            return several
        (q,) = problem.sides
        if q > _arguments.SIDES:
            return (
                f"adaptive quadrature is for up to {_arguments.SIDES} random effects a "
                "level, for its nodes are a power of their number; this model has "
                f"{q}. Use Laplace's approximation"
            )
        total = self.nodes**q
        if total > _arguments.RULE:
            return (
                f"{self.nodes} nodes in each of {q} dimensions are {total} a "
                f"level, more than {_arguments.RULE}. Use fewer"
            )
        return None

    def suits_lanes(self) -> bool:
        """With a number of nodes."""
        return self.nodes > 1

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
        return improve(problem, terms, psi, at, u, self.nodes, rule)

    def improve_lanes(
        self,
        d: LaneRows,
        split: lanes_point.Split,
        psi: Float[Array, "k L"],
        at: lanes_point.LanePoint,
        u: Float[Array, "q J L"],
    ) -> tuple[Float[Array, " L"], Float[Array, "k L"]]:
        """See ``improve_lanes`` of this module."""
        return improve_lanes(d, split, psi, at, u, self.nodes)


def one_factor(problem: GeneralisedProblem, what: str) -> str | None:
    """Why ``what``, which goes level by level, cannot be used for several factors."""
    if len(problem.sides) < 2:
        return None
    return (
        f"{what} needs one grouping factor, for it integrates over one level after "
        f"the other; this model has {len(problem.sides)}. Use Laplace's approximation"
    )


class _Sums(Module):
    """Sums over nodes, each level relative to its largest term so far.

    top: the largest log term; mass: sum of exp(term - top); s: by row; l: by level, one
    a dispersion parameter; kappa (q, J); outer: kappa z' (q, q, J); tu: t u' (q, q, J).
    """

    top: Array
    mass: Array
    s: Array
    l: tuple[Array, ...]
    kappa: Array
    outer: Array
    tu: Array


class _Rows(abc.ABC):
    """What the rule asks of rows: sums over them, and what their level says to them."""

    @abc.abstractmethod
    def terms(self, eta: Array) -> Any:
        """Log density and derivatives of the rows."""

    @abc.abstractmethod
    def ahead(self, eta: Array, step: Array) -> Array:
        """eta + Z step."""

    @abc.abstractmethod
    def collect(self, r: Array) -> Array:
        """Z'r of each level."""

    @abc.abstractmethod
    def along(self, r: Array) -> Array:
        """X'r."""

    @abc.abstractmethod
    def quadratic(self, N: small.Matrix) -> Array:
        """z'N z of each row."""

    @abc.abstractmethod
    def level_sum(self, x: Array) -> Array:
        """Sum over the rows of a level."""

    @abc.abstractmethod
    def at_rows(self, x: Array) -> Array:
        """A level's number at its rows."""

    @abc.abstractmethod
    def total(self, x: Array) -> Array:
        """Sum over the rows of a model."""

    @abc.abstractmethod
    def over_levels(self, x: Array) -> Array:
        """Sum over the levels of a model."""


@dataclass
class _OneModel(_Rows):
    problem: GeneralisedProblem
    of_rows: Terms
    phi: Array

    def terms(self, eta: Array) -> Any:
        return self.of_rows(eta, self.phi)

    def ahead(self, eta: Array, step: Array) -> Array:
        return eta + self.problem.rows.spread((step[:, None],))

    def collect(self, r: Array) -> Array:
        return self.problem.rows.collect(r[None])[0][:, 0]

    def along(self, r: Array) -> Array:
        return self.problem.predictors.total(self.problem.X, r)

    def quadratic(self, N: small.Matrix) -> Array:
        return self.problem.rows.quadratic(N)

    def level_sum(self, x: Array) -> Array:
        return self.problem.rows.level_sum(x)

    def at_rows(self, x: Array) -> Array:
        return self.problem.rows._at(0, x)

    def total(self, x: Array) -> Array:
        return jnp.sum(x)

    def over_levels(self, x: Array) -> Array:
        return jnp.sum(x, axis=-1)


@dataclass
class _Lanes(_Rows):
    d: LaneRows
    phi: Array

    def terms(self, eta: Array) -> Any:
        return lanes_point.terms(self.d, eta, self.phi, "observed", False)

    def ahead(self, eta: Array, step: Array) -> Array:
        return self.d.ahead(eta, list(step))

    def collect(self, r: Array) -> Array:
        return jnp.stack(self.d.collect(r))

    def along(self, r: Array) -> Array:
        empty = jnp.zeros((0, self.d.shape[-1]))
        return jnp.stack(self.d.along(r)) if self.d.p else empty

    def quadratic(self, N: small.Matrix) -> Array:
        return self.d.quadratic(N)

    def level_sum(self, x: Array) -> Array:
        return levels(x)

    def at_rows(self, x: Array) -> Array:
        return x[None]

    def total(self, x: Array) -> Array:
        return lanes(x)

    def over_levels(self, x: Array) -> Array:
        return jnp.sum(x, axis=-2)


@dataclass
class _Centre:
    """The point that nodes are around, as lists; names as in the head of this module.

    u, t, step: (q, J); slopes: (q, c, J), of (beta, phi); Lam, root, A: matrices.
    """

    eta: Array
    rows: Any
    u: Array
    t: Array
    step: Array
    slopes: Array
    Lam: small.Matrix
    root: small.Matrix
    A: small.Matrix


def improve(
    problem: GeneralisedProblem,
    terms: Terms,
    psi: Float[Array, " k"],
    at: Point,
    u: Effects,
    nodes: int,
    rule: Array | None = None,
) -> Point:
    """Value and score by quadrature in place of Laplace's; u must be the mode.

    problem: folded; at: the point at (psi, u), whose curvature is kept; rule: which of
    ``rules``, in place of nodes.
    """
    factor, r, p = at.factor, at.rows, problem.p
    assert isinstance(factor, BlocksFactor)
    assert r is not None  # rows of a point that quadrature is at are kept
    assert at.eta is not None
    lam = small.lower(at.lam[0])
    A, root = small.rows(factor.system.A), factor.L
    effects = u[0][:, 0], at.t[0][:, 0], at.step[0][:, 0]
    centre = _Centre(at.eta, r, *effects, at.slopes[0], lam, root, A)
    rows = _OneModel(problem, terms, problem.split(psi)[2])
    value, first, slope = _around(rows, problem.predictors, centre, nodes, rule)
    by_theta = pulled(at.J, pack([slope], problem.covariances))
    last = first[p:]
    if r.apart is not None:
        value, last = value - 2 * r.apart, last + jnp.stack(r.dapart)
    score = jnp.concatenate([first[:p], by_theta, last])
    return tree_at(lambda x: (x.value, x.score), at, (value, -2 * score))


def improve_lanes(
    d: LaneRows,
    split: lanes_point.Split,
    psi: Float[Array, "k L"],
    at: lanes_point.LanePoint,
    u: Float[Array, "q J L"],
    nodes: int,
) -> tuple[Float[Array, " L"], Float[Array, "k L"]]:
    """Value and score of lanes; u must be the modes."""
    p, r = d.p, at.rows
    centre = _Centre(at.eta, r, u, at.t, at.step, at.slopes, at.Lam, at.M, at.A)
    rows = _Lanes(d, split(psi)[2])
    value, first, slope = _around(rows, d.predictors, centre, nodes, None)
    last = list(first[p:])
    if r.dapart:
        last = [x + y for x, y in zip(last, r.dapart, strict=True)]
    by_entry = [slope[i, j] for i, j in split.covariance.entries]
    score = jnp.stack([*first[:p], *crit.pulled(at.J, by_entry), *last])
    return value if r.apart is None else value - 2 * r.apart, -2 * score


def _around(
    rows: _Rows, model: Predictors, at: _Centre, nodes: int, rule: Array | None
) -> tuple[Array, Array, Array]:
    """-2 log L, and the gradient of log L in (beta, phi) and in Lambda (q, q)."""
    Lam, root, r, u = at.Lam, at.root, at.rows, at.u
    C = small.stack(_inverse_transposed(root), u[0])
    M = small.stack(small.matmul(root, small.transpose(root)), u[0])
    sums = _visit(rows, at, C, len(r.dl), nodes, rule)
    share = 1 / sums.mass
    kappa, outer, tu = (x * share for x in (sums.kappa, sums.outer, sums.tu))
    logs = sums.top + jnp.log(sums.mass)

    def bend(m: Array) -> Array:
        inner = small.cholesky(small.rows(m))
        inverse = small.stack(_inverse_transposed(inner), m[0, 0])
        return jnp.sum(outer * inverse, axis=(0, 1)) - small.log_diagonal(inner)

    M_bar = grad_by_level(bend, M)
    bar = small.rows((M_bar + jnp.swapaxes(M_bar, 0, 1)) / 2)
    bent = small.matmul(Lam, bar)
    lev = rows.quadratic(small.matmul(bent, small.transpose(Lam)))
    a = model.carried(r.w1, lev)
    Za = rows.collect(a)
    pull = kappa + jnp.stack(small.apply(small.transpose(Lam), list(Za)))
    y = small.solve(root, list(pull))
    through = small.apply(Lam, y)
    s = sums.s * rows.at_rows(share)
    own = [
        rows.over_levels(l * share) + rows.total(model.paired(lev, dw))
        for l, dw in zip(sums.l, r.dw, strict=True)
    ]
    first = rows.along(s + a)
    first = jnp.concatenate([first, jnp.stack(own)]) if own else first
    first = first - rows.over_levels(
        sum(slope * x for slope, x in zip(at.slopes, through, strict=True))
    )
    moved = Za - jnp.stack(small.apply(at.A, through))
    slope = tu + 2 * small.stack(small.matmul(at.A, bent), u[0])
    slope = slope + moved[:, None] * u[None] + at.t[:, None] * jnp.stack(y)[None]
    half_det = rows.over_levels(small.log_diagonal(root))
    # value where the mode is, to first order
    ahead = rows.over_levels(jnp.sum(pull * at.step, axis=0))
    value = -2 * (rows.over_levels(logs) - half_det + ahead)
    return value, first, rows.over_levels(slope)


def _inverse_transposed(root: small.Matrix) -> small.Matrix:
    """L'^-1, upper triangular."""
    q = len(root)
    one = jnp.ones_like(root[0][0])
    columns = [
        small.backward(root, [one if i == j else 0.0 for i in range(q)])
        for j in range(q)
    ]
    return small.transpose(columns)


def _visit(
    rows: _Rows, at: _Centre, C: Array, n_phi: int, nodes: int, rule: Array | None
) -> _Sums:
    """The sums over all nodes, one after the other."""
    u, q = at.u, len(at.u)
    if rule is None:
        grid, log_w = product_rule(nodes, q)
        begin, end = 0, len(grid)
    else:
        _, ends, grid, log_w = rules(q)
        begin, end = jnp.asarray(ends)[rule], jnp.asarray(ends)[rule + 1]
    log_w = jnp.asarray(log_w + 0.5 * np.sum(grid**2, axis=1))
    grid = jnp.asarray(grid.reshape(len(grid), 1, q, *(1,) * (u.ndim - 1)))
    level = u.shape[1:]
    start = _Sums(
        jnp.full(level, -jnp.inf),
        jnp.zeros(level),
        jnp.zeros_like(at.eta),
        tuple(jnp.zeros(level) for _ in range(n_phi)),
        jnp.zeros_like(u),
        jnp.zeros_like(C),
        jnp.zeros_like(C),
    )
    across = small.transpose(at.Lam)
    LC = small.stack(small.matmul(at.Lam, small.rows(C)), u[0])

    def visit(k: Array, sums: _Sums) -> _Sums:
        z, log_weight = grid[k], log_w[k]
        there = u + jnp.sum(C * z, axis=1)
        r = rows.terms(rows.ahead(at.eta, jnp.sum(LC * z, axis=1)))
        term = log_weight + rows.level_sum(r.l) - jnp.sum(there**2, axis=0) / 2
        top = jnp.maximum(sums.top, term)
        safe = jnp.where(jnp.isfinite(top), top, 0.0)
        new, old = jnp.exp(term - safe), jnp.exp(sums.top - safe)
        new = jnp.where(jnp.isfinite(term), new, 0.0)
        old = jnp.where(jnp.isfinite(sums.top), old, 0.0)
        share = rows.at_rows(new)
        s = jnp.where(share > 0, r.s, 0.0)
        t = rows.collect(s)
        kappa = jnp.stack(small.apply(across, list(t))) - there
        return _Sums(
            top,
            sums.mass * old + new,
            sums.s * rows.at_rows(old) + s * share,
            tuple(
                x * old + rows.level_sum(jnp.where(share > 0, y, 0.0)) * new
                for x, y in zip(sums.l, r.dl, strict=True)
            ),
            sums.kappa * old + kappa * new,
            sums.outer * old + kappa[:, None] * z * new,
            sums.tu * old + t[:, None] * there[None] * new,
        )

    return lax.fori_loop(begin, end, visit, start)
