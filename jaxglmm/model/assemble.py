"""Design -> Problem: names are left behind here.

Each step is a function one can stop after: ``columns`` (terms to plain arrays),
``moments`` (cross-products, on the host), ``problem`` (a pytree for JAX).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm.model import covariances
from jaxglmm.model.covariances import base
from jaxglmm.model.linear_problem import Problem
from jaxglmm.model.predictors import Predictors
from jaxglmm.runtime import shares
from jaxglmm.structure.factors import ColumnMaps, TermColumns
from jaxglmm.structure.moments_of_design import Moments, build

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design, RandomTerm
    from jaxglmm.model.families import AbstractFamily


def columns(design: Design, maps: ColumnMaps | None = None) -> list[TermColumns]:
    """The random-effects terms as arrays; maps: in the place of any linear map."""
    return [
        TermColumns(
            t.factor,
            t.codes,
            t.values,
            t.n_levels,
            covariances.of(t),
            _maps(t, maps),
            t.predictor,
        )
        for t in design.terms
    ]


def _maps(term: RandomTerm, maps: ColumnMaps | None) -> ColumnMaps | None:
    """Fewer than the covariance allows; None: all of those."""
    if maps is not None and covariances.of(term).maps is not ColumnMaps.ANY:
        return None
    # columns of several predictors must not be mixed
    return maps if isinstance(term.predictor, int) else maps or ColumnMaps.SCALES


def predictors(design: Design) -> Predictors:
    """Names of the linear predictors and how many columns of X are each one's."""
    if not design.parts:
        return Predictors()
    return Predictors(tuple(design.parts), design.columns)


def fixed(design: Design) -> np.ndarray | list[np.ndarray]:
    """X, of several predictors one for each."""
    return [part.X for part in design.parts.values()] or design.X


def precise(design: Design, family: AbstractFamily) -> Design:
    """Weights of a linear model as precisions: trials of the Gaussian family.

    Weights that multiply log densities would make two rows of one of weight two, here
    sigma^2 / 2 is its variance. Rows of weight zero keep it.
    """
    w = design.weights
    if w is None or not family.is_linear_model:
        return design
    used = w > 0
    known = 1.0 if design.trials is None else design.trials
    weights = None if used.all() else used.astype(float)
    return replace(design, trials=np.where(used, w, 1.0) * known, weights=weights)


def moments(design: Design, structure: str | None = None) -> Moments:
    """Cross-products of a linear mixed model."""
    y = design.y if design.offset is None else design.y - design.offset
    share = shares.of_rows(*design.X.shape)
    return build(y, design.X, columns(design), design.weights, structure, share)


def problem(m: Moments) -> Problem:
    """The pytree, NumPy inside: move it to a device with ``jax.device_put``.

    The start is Lambda = I; ``estimate.start`` finds a better one.
    """
    own = tuple(f.covariance for f in m.factors)
    constant, constant_reml = constants(m)
    B, RR = right_sides(m)
    return Problem(
        m.system,
        B,
        RR,
        np.float64(m.n),
        np.asarray(base.identity(own)),
        np.float64(constant),
        np.float64(constant_reml),
        own,
    )


def right_sides(m: Moments) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Z'W[X y] a factor, and [X y]'W[X y]."""
    B = tuple(
        np.concatenate([ZX, Zy[:, None]], axis=1)
        for ZX, Zy in zip(m.ZX, m.Zy, strict=True)
    )
    return B, np.block([[m.XX, m.Xy[:, None]], [m.Xy[None], np.array([[m.yy]])]])


def constants(m: Moments) -> tuple[float, float]:
    """What the internal criteria lack: the scale of y and X, the weights (ML, REML)."""
    log_scale2 = 2 * float(np.log(m.fixed.scale))
    ml = m.n * log_scale2 - m.log_weights
    reml = (m.n - len(m.fixed.R)) * log_scale2 - m.log_weights + m.fixed.log_det
    return ml, reml
