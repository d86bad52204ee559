"""Linear models with one grouping factor in internal coordinates, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxglmm.estimate import refine
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.formula.design import Design
from jaxglmm.many.coordinates import Coordinates
from jaxglmm.many.linear import LANES, spans
from jaxglmm.model import assemble
from jaxglmm.postestimation.profile.constraint import run
from jaxglmm.runtime import placement
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure import per_dataset_design as own
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.level_types import Groups, Sums
from jaxglmm.structure.moments_of_design import Moments

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.fitting.linear import Engine

TOLERANCE, MOST_STEPS = 1e-10, 200  # of a fit with a fixed effect held


@dataclass(frozen=True)
class Internal:
    """D models in internal coordinates, and the way back.

    groups: last axis 1 or D; sums: last axis D; both None where one model is fitted by
    its engine. T: for every factor (D, q, q) or (1, q, q), internal random effects = T
    times the user's; R_inverse: (D, p, p) or (1, p, p), the user's beta = beta0 + scale
    R^-1 beta~; beta0: (D, p); scale, constant, n: (D,), the criterion is the internal
    one plus ``constant``; J: (D,) levels of every factor.
    """

    design: Design
    factors: tuple[Factor, ...]
    groups: Groups | None
    sums: Sums | None
    T: tuple[np.ndarray, ...]
    R_inverse: np.ndarray
    beta0: np.ndarray
    scale: np.ndarray
    constant: np.ndarray
    n: np.ndarray
    J: tuple[np.ndarray, ...]


def of_fit(fit: FittedModel) -> Internal:
    """One model of any structure, by its engine."""
    m = fit.engine.moments
    fixed = m.fixed
    return Internal(
        fit.design,
        m.factors,
        None,
        None,
        tuple(f.T[None] for f in m.factors),
        fixed.R_inverse[None],
        fixed.beta0[None],
        np.array([fixed.scale]),
        np.array([assemble.constants(m)[0]]),
        np.array([float(m.n)]),
        tuple(np.array([float(f.n_levels)]) for f in m.factors),
    )


def with_contrast(engine: Engine, row: np.ndarray, held: float) -> float:
    """The internal criterion of ML with row'beta held, row (p,).

    y loses its part and X its direction.
    """
    problem, size = engine.problem, np.linalg.norm(row)
    # an orthonormal basis of internal beta whose first vector is the row
    U = np.linalg.qr(np.column_stack([row, np.eye(len(row))]))[0]
    U[:, 0] *= np.sign(U[:, 0] @ row)
    change = np.zeros((len(row) + 1, len(row)))
    change[:-1, :-1] = U[:, 1:]
    change[:-1, -1] = -held / size * U[:, 0]
    change[-1, -1] = 1.0
    B = tuple(np.einsum("irg,rc->icg", b, change) for b in problem.B)
    RR = change.T @ np.asarray(problem.RR) @ change
    sides = placement.beside((B, RR), problem)
    own = tree_at(lambda s: (s.B, s.RR), problem, sides)
    found = refine.fit(engine.moments, own, Maximise(False), TOLERANCE, MOST_STEPS)
    return float(found.criterion)


def of_responses(
    design: Design, moments: Moments, groups: Groups, member: Any, Y: np.ndarray
) -> Internal:
    """Responses (n, D) of one design, complete, the offset taken off.

    groups, member: as ``structure.shared_design.rows`` has them.
    """
    (factor,), fixed, w = moments.factors, moments.fixed, moments.weights
    X, n, J = moments.basis.whole, moments.n, factor.n_levels
    WX = X if w is None else X * w[:, None]
    b = WX.T @ Y
    E = Y - X @ b
    change = WX.T @ E
    E = E - X @ change
    WE = E if w is None else E * w[:, None]
    scale = np.sqrt(np.sum(WE * E, axis=0) / n)
    WE = WE / scale
    y = np.swapaxes(cross.times(factor, WE, J), 1, 2)  # (q, J, D)
    yy = y[:, None] * y[None]
    if member is not None:
        y, yy = (np.tensordot(x, member, (-2, 1)) for x in (y, yy))
        y, yy = np.swapaxes(y, -1, -2), np.swapaxes(yy, -1, -2)
    rr = np.sum(WE * (E / scale), axis=0)
    D = len(scale)
    return Internal(
        design,
        (factor,),
        groups,
        Sums(np.ascontiguousarray(y), np.ascontiguousarray(yy), X.T @ WE, rr),
        (factor.T[None],),
        fixed.R_inverse[None],
        (b + change).T @ fixed.R_inverse.T,
        scale,
        n * 2 * np.log(scale) - moments.log_weights,
        np.full(D, float(n)),
        (np.full(D, float(J)),),
    )


@dataclass(frozen=True)
class _Localise:
    """Program: rows and (Y, W), or their products, to facts and local coordinates."""

    spans: own.Spans

    def __call__(self, rows: Any, lanes: Any) -> Any:
        raw = lanes if rows is None else own.weigh(rows, *lanes)
        return own.DesignFacts.of(raw), own.localise(raw, self.spans)


def of_own_designs(
    design: Design,
    where: Moments | Coordinates,
    rows: own.DesignRows | None,
    lanes: Any,
    devices: Devices,
) -> Internal:
    """Data sets with designs or weights of their own.

    where: the coordinates of ``lanes``; rows, lanes: what ``linear.OwnFit`` takes.
    """
    (factor,) = where.factors
    program = _Localise(spans(design, factor))

    def take(which: np.ndarray) -> Any:
        return jax.tree.map(lambda x: np.ascontiguousarray(x[..., which]), lanes)

    D = jax.tree.leaves(lanes)[0].shape[-1]
    facts, local = run(devices, program, rows, take, D, LANES[1])
    T_inverse = factor.T_inverse @ np.moveaxis(local.T_inverse, -1, 0)
    R_inverse = where.fixed.R_inverse
    return Internal(
        design,
        (factor,),
        local.groups,
        local.sums,
        (np.linalg.solve(T_inverse, np.eye(factor.q)),),
        R_inverse @ np.moveaxis(local.back, -1, 0),
        facts.b.T @ R_inverse.T,
        facts.scale,
        facts.n * 2 * np.log(facts.scale) - facts.log_weights,
        facts.n,
        (facts.J,),
    )
