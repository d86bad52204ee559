"""Many generalised models with one grouping factor, a parameter held in each lane.

``subspace`` with the lanes last: psi = origin + basis f, one program for
every parameter of a model, by the search of ``estimate.search_lanes``. The columns
of Z are rotated first, Z' = Z~ M, so that a standard deviation or a correlation is held
by an affine subspace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxglmm._typing import Array, Float, Int
from jaxglmm.estimate import search_lanes as gs
from jaxglmm.integrate import laplace_derivatives_lanes as pt
from jaxglmm.integrate.base import AT_MODE, AbstractMarginal
from jaxglmm.integrate.rows_lanes import LaneRows
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.predictors import Predictors
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module, tree_at


class AffineHold(Module):
    """M: (q, q, L) for every factor; origin: (k, L); basis: (k, k, L); idle: (k, L)."""

    M: tuple[Float[Array, "q q L"], ...]
    origin: Float[Array, "k L"]
    basis: Float[Array, "k k L"]
    idle: Float[Array, "k L"]


class Maxima(Module):
    """free: (k, L); u: (q, J, L) modes; value: (L,) -2 log-likelihood; status: (L,)."""

    free: Float[Array, "k L"]
    u: Float[Array, "q J L"]
    value: Float[Array, " L"]
    status: Int[Array, " L"]


class Along(pt.Split):
    """Parameters as they change when the free coordinates do."""

    basis: Float[Array, "k k L"]

    def __call__(self, psi: Array) -> tuple[list[Array], list[Array], Array]:
        """Of a change of f: those of beta, theta and phi."""
        return super().__call__(onto(self.basis, psi))


def onto(basis: Array, free: Array) -> Array:
    """basis f, (k, L)."""
    return jnp.sum(basis * free[None], axis=1)


@dataclass(frozen=True)
class HeldRowsFit:
    """Program: rows by name, ``AffineHold`` and where to start -> ``Maxima``."""

    family: AbstractFamily
    marginal: AbstractMarginal
    covariance: AbstractCovariance
    predictors: Predictors = field(default_factory=Predictors)
    of: tuple[int, ...] | None = None

    def __call__(self, common: Any, lanes: Any) -> Maxima:
        """common: (arrays, tol, max_steps); lanes: (arrays, hold, free, u)."""
        here, tol, max_steps = common
        there, hold, free, u = lanes
        given = here | there
        d = LaneRows(
            given["X"],
            rotated(given.get("Z"), hold.M[0]),
            given["y"],
            given["trials"],
            given["weights"],
            given.get("offset"),
            self.family,
            predictors=self.predictors,
            of=self.of,
        )
        return fit(self, d, hold, free, u, given["n_levels"], tol, max_steps)


def rotated(Z: Array | None, M: Float[Array, "q q L"]) -> Array | None:
    """Z M of each lane, (q, h, J, L)."""
    if Z is None or len(Z) == 1:
        return Z
    q = len(Z)
    return jnp.stack([sum(Z[i] * M[i, j] for i in range(q)) for j in range(q)])


def fit(
    how: HeldRowsFit,
    d: LaneRows,
    hold: AffineHold,
    free: Float[Array, "k L"],
    u: Float[Array, "q J L"],
    n_levels: Float[Array, " l"],
    tol: Array,
    max_steps: Array,
) -> Maxima:
    """The maximum of each lane's likelihood on its subspace, from where it is told."""
    marginal, B = how.marginal, hold.basis
    split = pt.Split(d.p, how.covariance, d.family.n_phi)
    along = Along(d.p, how.covariance, d.family.n_phi, B)
    idle = hold.idle[:, None] * np.eye(len(free))[:, :, None]

    def evaluate(f: Array, u: Array, exact: Array) -> pt.LanePoint:
        psi = hold.origin + onto(B, f)
        at = marginal.at_lanes(d, split, psi, u, exact)
        score = jnp.sum(B * at.score[:, None], axis=0)
        HB = jnp.sum(at.curvature[:, :, None] * B[None], axis=1)
        H = jnp.sum(B[:, :, None] * HB[:, None], axis=0) + idle
        scale = jnp.sum(B * B * at.scale[:, None], axis=0) + hold.idle
        return tree_at(lambda x: (x.score, x.curvature, x.scale), at, (score, H, scale))

    near = AT_MODE if marginal.beyond else None
    found = gs.minimise(d, along, evaluate, free, u, tol, max_steps, near, n_levels)
    return Maxima(found.psi, found.u, found.value + pt.constant(d), found.status)
