"""What each row says at its predictor: l, and its derivatives in eta and phi.

One function for one model and for lanes of models: rows are arrays of any shape, and
only their sums differ, over all rows or over those of each lane.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm._typing import Array, Scalar
from jaxglmm.integrate.row_weights import weighted
from jaxglmm.integrate.rows_lanes import LaneRows
from jaxglmm.model.families._by_phi import ByPhi
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime.arrays import is_host, jnp, jvp_rows, lax, segment_sum
from jaxglmm.runtime.trees import Module

Hessian = Literal["observed", "expected"]
SIDE = 64  # counts below its square are summed by the number of rows beyond each
MOST_JOINT = 2  # dispersion parameters whose second derivatives are all taken


class RowTerms(Module):
    """l without its constant, s, w, w1 of each row, weights inside.

    Each (n,), in lanes (h, J, L); of several predictors s is (K, n), w (K, K, n), w1
    (K, K, K, n).

    dl, ds, dw: derivatives in the dispersion parameters, one array each; ddl: the
    second derivative of l in each of them, summed (of each lane; empty where it was not
    asked for); info: instead of ddl all of them, minus and summed, of a family that
    ``has_joint_information`` and of one model with several predictors; v, v1: what
    stands in M where that is not w, and its derivative in eta, dv in phi (one
    predictor). apart, dapart: of each lane, the part of the log-likelihood that eta
    does not enter, of a family that ``has_separable_term``, and its derivatives in the
    dispersion parameters.
    """

    l: Array
    s: Array
    w: Array
    w1: Array
    dl: tuple[Array, ...] = ()
    ds: tuple[Array, ...] = ()
    dw: tuple[Array, ...] = ()
    ddl: tuple[Array, ...] = ()
    v: Array | None = None
    v1: Array | None = None
    dv: tuple[Array, ...] = ()
    info: tuple[tuple[Array, ...], ...] = ()
    apart: Array | None = None
    dapart: tuple[Array, ...] = ()


Terms = Callable[[Array, Array], RowTerms]


def terms_of(problem: GeneralisedProblem, hessian: Hessian = "observed") -> Terms:
    """The function (eta, phi) -> RowTerms of a problem's rows."""
    joint = has_joint(problem)
    apart: Callable[[Array], Array] | None = None
    if problem.family.discrete and problem.family.has_separable_term:
        apart = partial(separable, problem)

    def terms(eta: Array, phi: Array) -> RowTerms:
        own = {"apart": apart, "joint": joint}
        return row_terms(problem, eta, phi, hessian, total=jnp.sum, **own)

    return terms


def has_joint(rows: GeneralisedProblem | LaneRows) -> bool:
    """Whether all second derivatives in phi are found, whatever the family."""
    return rows.predictors.K > 1 and rows.family.n_phi <= MOST_JOINT


def separable(problem: GeneralisedProblem, phi: Array) -> Scalar:
    """The part of the log-likelihood of counts that eta does not enter.

    By parts: the sum over k of its step from k to k + 1, as often as there are rows
    beyond k, which takes a look at each row but no function of it. Row by row where
    a count is larger than ``SIDE`` squared.
    """
    y, weights = problem.y, jnp.broadcast_to(problem.weights, problem.y.shape)
    used = weights > 0
    if is_host():
        steps = min(int(np.max(y, initial=0.0)) + 1, SIDE**2)
        side = int(np.ceil(np.sqrt(steps)))
    else:
        side = SIDE
    top = side * side
    at = jnp.clip(y, 0, top - 1).astype(int)
    held = jnp.all(~used | (at == y))

    def by_steps() -> Array:
        rows = jnp.where(used, weights * 1.0, 0.0).reshape(-1)
        many = segment_sum(rows, at.reshape(-1), top).reshape(side, side)
        inside = many @ np.tril(np.ones((side, side)), -1)
        after = np.triu(np.ones((side, side)), 1) @ jnp.sum(many, axis=1)
        beyond = (inside + after[:, None]).reshape(-1)
        step = problem.family.log_separable_step(jnp.arange(1.0 * top), phi)
        return jnp.sum(beyond * step)

    def by_rows() -> Array:
        found = problem.family.log_separable(y, phi)
        return jnp.sum(jnp.where(used, weights * found, 0.0))

    return lax.cond(held, by_steps, by_rows)


def row_terms(
    rows: GeneralisedProblem | LaneRows,
    eta: Array,
    phi: Array,
    hessian: str,
    total: Callable[[Array], Array],
    second: bool = True,
    apart: Callable[[Array], Array] | None = None,
    joint: bool = False,
) -> RowTerms:
    """The terms of rows.

    Args:
        rows: of one model, or of lanes.
        eta: of the rows.
        phi: (r,), in lanes (r, L).
        hessian: "observed", or "expected" for v, v1 and dv too.
        total: the sum over rows, a number a model.
        second: whether to find ``ddl``.
        apart: phi -> what eta does not enter; the rows then have the rest alone.
        joint: whether to find ``info`` in place of ``ddl``, whatever the family.

    Raises:
        NotApplicableError: expected information of several predictors.
    """
    family, weights = rows.family, rows.weights
    used = weights > 0
    split = apart is not None
    derivatives = family.coupled_derivatives if split else family.kernel_derivatives

    def plain(phi: Array) -> tuple[Array, ...]:
        out = derivatives(rows.y, eta, phi, rows.trials)
        if hessian == "expected":
            if rows.predictors.K > 1:
                raise NotApplicableError(
                    "hessian='expected' is for models of one linear predictor; use "
                    "Laplace's approximation with the observed information"
                )

            def expected(x: Array) -> Array:
                return family.expected_weight(x, phi, rows.trials)

            out = (*out, *jvp_rows(expected, (eta,), (jnp.ones_like(eta),)))
        return tuple(jnp.where(used, weights * x, 0.0) for x in out)

    def density(phi: Array) -> Array:
        if split:
            return plain(phi)[0]
        l = family.log_density(rows.y, eta, phi, rows.trials)
        return jnp.where(used, weights * l, 0.0)

    if not family.n_phi:
        out = plain(phi)
        return RowTerms(*out[:4], v=_at(out, 4), v1=_at(out, 5))
    known = family.knows_phi and (split or not family.has_separable_term)
    if known and hessian == "observed":
        found = weighted(family.by_phi(rows.y, eta, phi, rows.trials), used, weights)
        return _by_formulas(
            found, phi, total, apart, joint or family.has_joint_information
        )
    tangents, curved, whole, moved = [], [], None, []
    directions = units(family.n_phi, phi)
    for unit in directions:
        out, tangent = jvp_rows(plain, (phi,), (unit,))
        tangents.append(tangent)
        if split:
            whole, slope = jvp_rows(apart, (phi,), (unit,))
            moved.append(slope)
        if second and not joint:
            found = total(_curvature(density, phi, unit))
            curved.append(found + _curvature(apart, phi, unit) if split else found)
    info = ()
    if joint and second:
        pairs = [[(a, b) for b in directions] for a in directions]
        info = tuple(
            tuple(-total(_curvature(density, phi, *pair)) for pair in row)
            for row in pairs
        )
        if split:
            info = _less(info, apart, phi)
    return RowTerms(
        *out[:4],
        dl=tuple(x[0] for x in tangents),
        ds=tuple(x[1] for x in tangents),
        dw=tuple(x[2] for x in tangents),
        ddl=tuple(curved),
        v=_at(out, 4),
        v1=_at(out, 5),
        dv=tuple(x[4] for x in tangents) if len(out) > 4 else (),
        info=info,
        apart=whole,
        dapart=tuple(moved),
    )


def _by_formulas(
    found: ByPhi,
    phi: Array,
    total: Callable[[Array], Array],
    apart: Callable[[Array], Array] | None,
    joint: bool,
) -> RowTerms:
    """The terms from derivatives in phi that the family knows."""
    info = tuple(tuple(map(total, row)) for row in found.info)
    whole, moved = None, ()
    if apart is not None:
        pairs = [jvp_rows(apart, (phi,), (unit,)) for unit in units(len(phi), phi)]
        whole, moved = pairs[0][0], tuple(slope for _, slope in pairs)
        info = _less(info, apart, phi)
    ddl = () if joint else tuple(-row[i] for i, row in enumerate(info))
    return RowTerms(
        *found.plain,
        found.dl,
        found.ds,
        found.dw,
        ddl,
        info=info if joint else (),
        apart=whole,
        dapart=moved,
    )


def _less(
    info: tuple[tuple[Array, ...], ...], apart: Callable[[Array], Array], phi: Array
) -> tuple[tuple[Array, ...], ...]:
    """Information of phi with that of what eta does not enter."""
    directions = units(len(phi), phi)
    return tuple(
        tuple(
            found - _curvature(apart, phi, a, b)
            for b, found in zip(directions, row, strict=True)
        )
        for a, row in zip(directions, info, strict=True)
    )


def _curvature(
    function: Callable[[Array], Array],
    phi: Array,
    unit: Array,
    other: Array | None = None,
) -> Array:
    """The second derivative along one direction, or along two."""

    def slope(x: Array) -> Array:
        return jvp_rows(function, (x,), (unit,))[1]

    return jvp_rows(slope, (phi,), (unit if other is None else other,))[1]


def units(n_phi: int, phi: Array) -> list[Array]:
    """The directions of the dispersion parameters, of all lanes."""
    one = np.eye(n_phi).reshape(n_phi, *phi.shape[:1], *[1] * (phi.ndim - 1))
    return [jnp.broadcast_to(x, phi.shape) for x in one]


def _at(parts: tuple[Array, ...], k: int) -> Array | None:
    return parts[k] if len(parts) > k else None


def constant(rows: GeneralisedProblem | LaneRows, total: Callable = jnp.sum) -> Scalar:
    """-2 times what ``RowTerms.l`` leaves out of the log-likelihood."""
    base = rows.family.log_base(rows.y, rows.trials)
    return -2 * total(jnp.where(rows.weights > 0, rows.weights * base, 0.0))
