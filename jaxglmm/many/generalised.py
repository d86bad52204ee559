"""Many generalised linear mixed models with one grouping factor: lanes to table rows.

Rows are sorted by level and laid out (height, levels, lanes), see ``rows_lanes``. One
engine, ``GeneralisedLanes``, and two kinds of data: responses of one design
(``response_rows``), whose missing values and weights of their own make the weights
differ from lane to lane and nothing else, and a long table of data sets with designs of
their own (``ragged_generalised``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm.estimate import generalised_lanes as generalised
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting import ordinal, ordinal_notes, separation
from jaxglmm.fitting.generalised import inverse_hessian
from jaxglmm.formula.design import Design
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.columns import AGAIN, ALONE, KeptColumns
from jaxglmm.many.linear import (
    USABLE,
    columns,
    is_free,
    lambdas,
    packed,
)
from jaxglmm.many.located import Categories, Reading, by_gaps
from jaxglmm.many.values import LEAST_VALUES, apart, tabulated
from jaxglmm.model import assemble
from jaxglmm.model.families import AbstractFamily
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import Factor

CELLS = 12_000  # padded rows x lanes in one chunk on a CPU
LANES = 8, 256
CELLS_SEVERAL = 48_000  # and values of rows x lanes, of models of several predictors
SEVERAL = 25, 60, 200  # steps of each round of models of several predictors
MOST_FIXED = 8
MOST_RANDOM = 3
MOST_CUT = 4  # predictors of ordinal models, whose programs grow by their third power


def suits(source: ModelSource, located: bool = False) -> bool:
    """Whether the unrolled programs can take the model.

    located: thresholds too, whose location is an intercept that X does not have.
    """
    design, marginal = source.design, source.model
    q = sum(len(t.names) for t in design.terms)
    one = len({t.factor for t in design.terms}) == 1
    small = q <= MOST_RANDOM and design.p <= MOST_FIXED
    plain = isinstance(marginal, AbstractMarginal) and marginal.suits_lanes()
    family = source.family
    if family.family_kind == "ordinal":
        plain = plain and located and len(family.predictors) <= MOST_CUT
    return one and small and plain and is_free(design)


def generalised_columns(design: Design, family: AbstractFamily) -> KeptColumns:
    """What is kept of each fit."""
    plain = columns(design)
    names = tuple(family.phi_names) if family.n_phi else ()
    return replace(plain, dispersion=names, errors=family.family_kind == "ordinal")


@dataclass(frozen=True)
class LaneArrays:
    """L data sets as their program takes them, and the way back.

    shared, there: arrays of ``rows_lanes.LaneRows`` by name, ``n_levels`` and ``back``,
    those that lanes share and those they do not; eta, phi: where to start; status: (L,)
    zero, or why there is no fit; back: (L, P, p) or (1, P, p), to the user's
    coordinates, a location before them; T_inverse: (q, q) or (L, q, q), the same of
    effects; y: what ``rows_of`` has places of, (n, L); seen: of categories, which there
    are; rows_of: (lane, its back times beta, its effects) -> design, eta, places.
    """

    shared: dict[str, Any]
    there: dict[str, np.ndarray]
    eta: np.ndarray
    phi: np.ndarray
    status: np.ndarray
    back: np.ndarray
    T_inverse: np.ndarray
    y: np.ndarray
    seen: Categories | None
    rows_of: Callable[[int, np.ndarray, np.ndarray], tuple]


class RowsOfLanes(Protocol):
    """Where lanes come from.

    source; factor: the one of random effects; h, J: rows of a level and levels of a
    lane, padded; numbers: cells of a lane that hold numbers of its own, beside those of
    each row.
    """

    source: ModelSource
    factor: Factor
    h: int
    J: int
    numbers: int

    def rows(self, which: np.ndarray) -> LaneArrays:
        """The rows of data sets ``which`` (L,)."""
        ...


class GeneralisedLanes:
    """Data sets in lanes of one program."""

    surer_alone = False

    def __init__(self, data: RowsOfLanes, devices: Devices):
        source = data.source
        self.data, self.source, self.devices = data, source, devices
        self.design = source.design
        self.columns = generalised_columns(source.design, source.family)
        predictors = assemble.predictors(source.design)
        cells = data.h * data.J * predictors.K
        most = CELLS if predictors.K == 1 else CELLS_SEVERAL
        self.chunk = devices.chunk(cells, most, LANES)
        self.lanes = devices.block(self.chunk, cells * (6 + data.numbers))
        self.unit = devices.unit(self.chunk)
        self.program = generalised.RowsFit(
            ordinal.core(source.family),
            source.model,
            data.factor.covariance,
            predictors,
            data.factor.predictors if predictors.K > 1 else None,
        )
        if predictors.K > 1:  # whose modes take steps of their own
            self.steps = SEVERAL
        self.room = LEAST_VALUES

    @double_precision
    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for data sets ``which`` (L,), at most ``steps`` steps."""
        located = int(ordinal.has_location(self.source.family))
        r = self.data.rows(which)
        report = self.run(r.shared, r.there, r.eta, r.phi, steps)
        status = np.where(r.status == 0, report.status, r.status)
        p = r.back.shape[-1]
        whole = np.matmul(r.back, report.psi[:p].T[..., None])[..., 0]
        row = -r.back[:, 0] if located else None
        return table(
            self.design,
            self.columns,
            self.data.factor,
            Reading(self.source.family, row, len(report.psi)),
            report,
            status,
            whole[:, located:],
            r.back[:, located:],
            r.T_inverse,
            lambda i: r.rows_of(i, whole[i], report.b[..., i]),
            r.y,
            r.seen,
        )

    def run(
        self, shared: dict, there: dict, guess: np.ndarray, phi: np.ndarray, steps: int
    ) -> generalised.Report:
        """Run the program; arrays by name, those that lanes share and those not."""
        family = self.source.family
        given = shared | there
        weights, trials = np.asarray(given["weights"]), np.asarray(given["trials"])
        if family.has_separable_term:
            parts = apart(there["y"], weights, self.room)
            self.room = max(self.room, *map(len, parts.values()))
            there = there | parts
        base = tabulated(family, there["y"], trials, weights)
        if base is not None:
            there = there | {"base": base}
        stop = np.float64(_engine.SAFETY * self.source.tol)
        shared = {k: v for k, v in shared.items() if v is not None}
        found = self.devices.run(
            self.program,
            (shared, stop, np.int64(steps)),
            (there, guess, phi),
            self.chunk,
            apart=True,
        )
        return jax.tree.map(np.asarray, found)


def table(
    design: Design,
    columns: KeptColumns,
    factor: Factor,
    reading: Reading,
    report: generalised.Report,
    status: np.ndarray,
    beta: np.ndarray,
    back: np.ndarray,
    T_inverse: np.ndarray,
    rows_of: Any,
    Y: np.ndarray,
    seen: Categories | None = None,
) -> np.ndarray:
    """Rows of the table, in the user's coordinates."""
    from scipy.special import erfc

    family = reading.core
    p, m = back.shape[-1], factor.covariance.m
    theta, phi = report.psi[p : p + m], report.psi[p + m :]
    status = np.where(status == _status.MAX_STEPS, AGAIN, status)
    lost = (_status.STALLED, _status.NOT_FINITE)
    status = np.where(np.isin(status, lost), ALONE, status)  # which starts anew
    usable = np.isin(status, USABLE)
    lam, singular = lambdas(factor, theta, T_inverse)
    sd = np.concatenate(
        [
            np.sqrt(np.sum(lam[:, a:b, a:b] ** 2, axis=-1))
            for _, a, b in sorted(factor.spans)
        ],
        axis=1,
    )
    se = report.se.T.copy()
    scales = np.array(factor.covariance.is_scale)
    pinned = np.concatenate(
        [
            np.zeros((p, len(status)), bool),
            scales[:, None] & (np.abs(theta) < _engine.SINGULAR),
            family.at_end(phi),
        ]
    )
    for i in np.flatnonzero((report.unsure == 1) & usable):
        H = report.hessian[:, :, i]
        V = inverse_hessian(H, pinned[:, i], p)[:p, :p]
        own = back[i % len(back)]
        se[i] = np.sqrt(np.einsum("ij,jk,ik->i", own, V, own))
    with np.errstate(invalid="ignore", divide="ignore"):
        p_values = erfc(np.abs(beta / se) / np.sqrt(2))
    dispersion = reading.natural(report.psi)
    errors = np.zeros((len(status), 0))
    if columns.errors:
        errors = reading.errors(report.psi, report.hessian, pinned, report.unsure)
    if seen is not None and columns.errors and by_gaps(family):
        dispersion = seen.thresholds(dispersion)
        errors = np.where(np.isfinite(dispersion), errors, np.nan)
    out = columns.table(
        len(status),
        coefficients=beta,
        se=se,
        df=np.full(beta.shape, np.inf),
        p_values=p_values,
        sd=sd,
        theta=packed(design, factor, lam),
        dispersion=dispersion,
        dispersion_se=errors,
        log_likelihood=-report.criterion / 2,
        decrement=report.decrement,
        steps=report.steps,
        singular=singular,
        separated=separated(family, report.far, usable, beta, rows_of, Y),
        status=status,
    )
    out[~usable, :-1] = np.nan
    return out


def separated(
    family: AbstractFamily,
    far: np.ndarray,
    usable: np.ndarray,
    beta: np.ndarray,
    rows_of: Any,
    Y: np.ndarray,
) -> np.ndarray:
    """(L,) whether coefficients have run off; few lanes need a closer look."""
    out = np.zeros(len(far))
    edge = family.link.end
    if edge is None or not family.discrete or len(family.predictors) > 1:
        return out
    for i in np.flatnonzero(usable & (far > edge)):
        design, eta, rows = rows_of(i)
        y = Y[rows, i]
        try:
            if family.family_kind == "ordinal":
                out[i] = ordinal_notes.any_runs_off(design.X, y)
            else:
                out[i] = separation.any_found(design, family, beta[i], eta, y)
        except (ValueError, np.linalg.LinAlgError):
            continue
    return out
