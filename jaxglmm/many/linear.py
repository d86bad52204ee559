"""Many linear mixed models with one grouping factor: chunks of lanes to table rows.

One engine, ``LinearLanes``, and three kinds of data: responses of one design, complete
or with missing values and weights of their own, and the data sets of a long table
(``ragged_linear``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm.estimate import linear_lanes as linear
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting.coefficients import t_p_values
from jaxglmm.formula.design import Design
from jaxglmm.many.columns import AGAIN, ALONE, KeptColumns
from jaxglmm.many.coordinates import Coordinates
from jaxglmm.many.correlations import terms_of
from jaxglmm.many.pieces import OnHost, placed
from jaxglmm.many.responses import (
    Responses,
    marked,
    values_of,
    without_offset,
)
from jaxglmm.model import covariances
from jaxglmm.model.covariances import base
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure import per_dataset_design as own
from jaxglmm.structure import shared_design as shared
from jaxglmm.structure.factors import ColumnMaps, Factor
from jaxglmm.structure.moments_of_design import Moments

CELLS = 8192  # types of levels x lanes in one chunk on a CPU
LANES = 8, 512
CHUNKS = 2  # in a block there: ten thousand lanes keep two threads busy to the end
MOST_FIXED = 10  # columns of X whose Cholesky factor is unrolled
MOST_RANDOM = 3
USABLE = (
    _status.CONVERGED,
    _status.MAX_STEPS,
    _status.STALLED,
    _status.NO_RESIDUAL,
    AGAIN,
)


def suits(design: Design) -> bool:
    """Whether the unrolled programs can take the model."""
    q = sum(len(t.names) for t in design.terms)
    one = len({t.factor for t in design.terms}) == 1
    return one and q <= MOST_RANDOM and design.p <= MOST_FIXED and is_free(design)


def is_free(design: Design) -> bool:
    """Whether thetas are entries of Lambda, as the lanes' coordinates want them."""
    return all(c.free for c in covariances.of_terms(design.terms))


def columns(design: Design) -> KeptColumns:
    """What is kept of each fit."""
    own = covariances.of_terms(design.terms)
    sd = covariances.sd_names(design.terms)
    return KeptColumns(
        tuple(design.x_names), sd, base.total(own), terms=terms_of(design.terms)
    )


@dataclass(frozen=True)
class Settings:
    """reml; tol: of the criterion; satterthwaite: degrees of freedom (else n - p)."""

    reml: bool
    tol: float
    satterthwaite: bool = True

    @property
    def stop(self) -> np.float64:
        """Where the search stops, as in a single fit."""
        return np.float64(_engine.SAFETY * self.tol)


class LanesOfData(Protocol):
    """Where lanes of linear models come from.

    where: the coordinates that they have in common; numbers: doubles that a lane
    brings; cells, chunks: in a chunk and in a block on a CPU; apart: whether chunks go
    in calls of their own.
    """

    where: Moments | Coordinates
    numbers: int
    cells: int
    chunks: int
    apart: bool

    def program(self, design: Design, reml: bool) -> Any:
        """What fits a chunk: a function of what is common, then of the lanes."""
        ...

    def common(self, devices: Devices) -> tuple:
        """Arrays that all lanes share; the first is the design's, or None."""
        ...

    def size(self, common: Callable[[], tuple]) -> int:
        """Cells of a lane; common: what is asked for those alone who need it."""
        ...

    def lanes(self, which: np.ndarray) -> tuple[Any, np.ndarray]:
        """What the program takes; (L,) statuses, zero where lanes can be fitted."""
        ...

    def table(
        self,
        design: Design,
        columns: KeptColumns,
        found: Any,
        settings: Settings,
        refused: np.ndarray,
    ) -> np.ndarray:
        """Rows of the table from what the program found."""
        ...


class LinearLanes(OnHost):
    """Data sets in lanes of one program.

    data: where the lanes come from, responses of one design (``CompleteResponses``,
    ``WeightedResponses``) or a long table (``ragged_linear.LongTable``).
    """

    surer_alone = True

    @double_precision
    def __init__(
        self, design: Design, data: LanesOfData, settings: Settings, devices: Devices
    ):
        self.design, self.data, self.settings = design, data, settings
        self.devices, self.columns = devices, columns(design)
        cells = data.size(lambda: self.common)
        self.chunk = devices.chunk(cells, data.cells, LANES)
        self.lanes = devices.block(self.chunk, data.numbers, data.chunks)
        self.unit = devices.unit(self.chunk) if data.apart else None
        self.program = data.program(design, settings.reml)

    @placed
    def common(self) -> tuple:
        """What all lanes share."""
        return self.data.common(self.devices)

    @double_precision
    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for data sets ``which`` (L,), at most ``steps`` steps."""
        lanes, refused = self.data.lanes(which)
        common = (*self.common, self.settings.stop, np.int64(steps))
        apart, chunk = self.data.apart, self.chunk
        found = self.devices.run(self.program, common, lanes, chunk, apart)
        found = jax.tree.map(np.asarray, found)
        design, columns = self.design, self.columns
        return self.data.table(design, columns, found, self.settings, refused)


class CompleteResponses:
    """Responses of one design, every row there and the same weights for all.

    What depends on the design is computed once; a response with missing rows is passed
    on.
    """

    cells, chunks, apart = CELLS, CHUNKS, False

    def __init__(
        self,
        moments: Moments,
        responses: Responses,
        offset: np.ndarray | Responses | None,
        n: int,
    ):
        self.where, self.responses, self.offset = moments, responses, offset
        self.numbers = n

    def program(self, design: Design, reml: bool) -> Any:
        """Of types of levels."""
        return linear.SharedFit(self.where.factors[0].covariance, reml)

    def common(self, devices: Devices) -> tuple:
        """Rows and types of levels, and the way back to the user's X."""
        m = self.where
        return devices.shared((*shared.rows(m), m.fixed.R_inverse[..., None]))

    def size(self, common: Callable[[], tuple]) -> int:
        """Types of levels."""
        return common()[1].A.shape[2]

    def complete(self, which: np.ndarray) -> np.ndarray:
        """(n, L) responses, the offset taken off, of the rows that have a weight."""
        return without_offset(self.responses, self.offset, which, self.where.keep)

    def lanes(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, L) responses; (L,) statuses."""
        Y = self.complete(which)
        return Y, marked(Y, np.zeros(len(which), int))

    def table(
        self,
        design: Design,
        columns: KeptColumns,
        found: Any,
        settings: Settings,
        refused: np.ndarray,
    ) -> np.ndarray:
        """Rows of the table."""
        (ready, report), m = found, self.where
        fixed, factor = m.fixed, m.factors[0]
        status = report.status.copy()
        status[ready.exact == 1] = _status.EXACT
        status[ready.constant == 1] = _status.CONSTANT
        status = np.where(refused != 0, refused, status)
        N = m.n - (len(fixed.R) if settings.reml else 0)
        with np.errstate(divide="ignore", invalid="ignore"):  # bad lanes
            constant = N * 2 * np.log(ready.scale) - m.log_weights
        return table(
            design,
            columns,
            factor,
            report,
            status,
            beta=(ready.least_squares + ready.scale * report.beta).T
            @ fixed.R_inverse.T,
            se=(report.se * ready.scale).T,
            scale=ready.scale,
            constant=constant + (fixed.log_det if settings.reml else 0.0),
            T_inverse=factor.T_inverse,
            residual_df=None if settings.satterthwaite else m.n - len(fixed.R),
        )


class OwnLanes:
    """Data sets with designs or weights of their own: one program, one table."""

    where: Moments | Coordinates
    levels: int

    def program(self, design: Design, reml: bool) -> Any:
        """Of levels."""
        (factor,) = self.where.factors
        return linear.OwnFit(factor.covariance, spans(design, factor), reml)

    def common(self, devices: Devices) -> tuple:
        """No design that they share, and the way back to the user's X."""
        return None, self.where.fixed.R_inverse

    def size(self, common: Callable[[], tuple]) -> int:
        """Levels."""
        return self.levels

    def table(
        self,
        design: Design,
        columns: KeptColumns,
        found: Any,
        settings: Settings,
        refused: np.ndarray,
    ) -> np.ndarray:
        """Rows of the table."""
        return lanes_table(design, columns, self.where, found, settings, refused)


class WeightedResponses(OwnLanes):
    """Responses of one design as columns, weights of their own; weight 0 is no row."""

    cells, chunks, apart = CELLS, 8, False

    def __init__(
        self,
        moments: Moments,
        responses: Responses,
        offset: np.ndarray | Responses | None,
        weights: np.ndarray | Responses | None,
    ):
        self.where, self.responses = moments, responses
        self.offset, self.weights = offset, weights
        (factor,) = moments.factors
        self.levels, self.numbers = factor.n_levels, 4 * len(factor.codes)

    def common(self, devices: Devices) -> tuple:
        """The design, row by row, and the way back to the user's X."""
        return devices.shared(self.rows()), self.where.fixed.R_inverse

    def rows(self) -> own.DesignRows:
        """The design, row by row."""
        (factor,) = self.where.factors
        J, n = factor.n_levels, len(factor.codes)
        level = None
        if J * n <= shared.MOST_DENSE:
            ones = Factor(factor.name, factor.codes, None, J, np.eye(1), (), ())
            level = cross.indicator(ones, 0, J).toarray()
        Z = np.ones((1, n)) if factor.values is None else factor.values.T
        X = self.where.basis.whole
        return own.DesignRows(X, np.ascontiguousarray(Z), level, factor.codes, J)

    def lanes(self, which: np.ndarray) -> tuple[Any, np.ndarray]:
        """Y and W (n, L), weight 0 for no row; (L,) statuses."""
        Y = self.responses.take(which)
        W = values_of(self.weights, which, Y.shape)
        offset = values_of(self.offset, which, Y.shape, 0.0)
        infinite = unusable(Y, W, offset)
        missing = ~np.isfinite(Y) | ~np.isfinite(W) | ~np.isfinite(offset)
        if missing.any():
            W = np.where(missing, 0.0, W)
        Y = np.where(W > 0, Y - offset, 0.0)
        if self.where.keep is not None:
            Y, W = Y[self.where.keep], W[self.where.keep]
        return (Y, W), np.where(infinite, _status.BAD_VALUES, 0)


def unusable(Y: np.ndarray, W: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(L,) where values are infinite or weights negative; missing ones are fine."""
    wrong = np.isinf(Y) | np.isinf(offset) | np.isinf(W) | (W < 0)
    return wrong.any(axis=0)


def spans(design: Design, factor: Factor) -> own.Spans:
    """First and last column of each term, and whether they may be mixed."""
    return tuple(
        (start, stop, covariances.of(design.terms[index]).maps is ColumnMaps.ANY)
        for index, start, stop in factor.spans
    )


def lanes_table(
    design: Design,
    columns: KeptColumns,
    m: Moments | Coordinates,
    found: Any,
    settings: Settings,
    refused: np.ndarray,
) -> np.ndarray:
    """Rows of the table from what ``linear.OwnFit`` found.

    The coordinates of the lanes are those of ``m.fixed.R`` and of the one factor's T.
    """
    (factor,) = m.factors
    reml = settings.reml
    raw, (back, T_inverse, log_det), report = found
    p = len(back)
    inner = raw.b + raw.scale * np.einsum("abl,bl->al", back, report.beta)
    N = raw.n - (p if reml else 0)
    scale = np.where(raw.scale > 0, raw.scale, np.nan)  # 0: a constant response
    constant = N * 2 * np.log(scale) - raw.log_weights
    if reml:
        constant = constant + log_det + m.fixed.log_det
    status = report.status.copy()
    status[raw.exact == 1] = _status.EXACT
    status[raw.dependent == 1] = ALONE
    status[raw.constant == 1] = _status.CONSTANT
    few = (p >= raw.n) | (raw.J * factor.q >= raw.n) | (raw.J < 2)
    status[few] = _status.TOO_FEW
    status = np.where(refused != 0, refused, status)
    return table(
        design,
        columns,
        factor,
        report,
        status,
        beta=inner.T @ m.fixed.R_inverse.T,
        se=(report.se * raw.scale).T,
        scale=raw.scale,
        constant=constant,
        T_inverse=factor.T_inverse @ np.moveaxis(T_inverse, -1, 0),
        residual_df=None if settings.satterthwaite else raw.n - p,
    )


def table(
    design: Design,
    columns: KeptColumns,
    factor: Factor,
    report: linear.LinearReport,
    status: np.ndarray,
    *,
    beta: np.ndarray,
    se: np.ndarray,
    scale: np.ndarray,
    constant: np.ndarray,
    T_inverse: np.ndarray,
    residual_df: np.ndarray | float | None,
) -> np.ndarray:
    """Rows of the table, in the user's coordinates."""
    sigma = np.sqrt(report.sigma2) * scale
    reproduced = ~(report.sigma2 > _engine.NO_RESIDUAL) & (status >= 0)
    lost = ~np.isfinite(report.criterion) | ~np.isfinite(report.beta).all(axis=0)
    status = np.where(lost & (status == _status.CONVERGED), ALONE, status)
    fitted = np.isin(status, USABLE)
    status = np.where(reproduced & fitted, _status.NO_RESIDUAL, status)
    status = np.where(status == _status.MAX_STEPS, AGAIN, status)
    status = np.where(status == _status.STALLED, ALONE, status)
    lam, singular = lambdas(factor, report.theta, T_inverse)
    sd = np.concatenate(
        [
            np.sqrt(np.sum(lam[:, a:b, a:b] ** 2, axis=-1))
            for _, a, b in sorted(factor.spans)
        ],
        axis=1,
    )
    df = report.df.T
    if residual_df is not None:
        df = np.broadcast_to(np.reshape(residual_df, (-1, 1)), df.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        p_values = t_p_values(beta / se, df)
        out = columns.table(
            len(sigma),
            coefficients=beta,
            se=se,
            df=df,
            p_values=p_values,
            sd=sd * sigma[:, None],
            theta=packed(design, factor, lam),
            sigma=sigma,
            log_likelihood=-(report.criterion + constant) / 2,
            df_sigma=report.df_sigma,
            decrement=report.decrement,
            steps=report.steps,
            singular=singular,
            status=status,
        )
    out[~np.isin(status, USABLE), :-1] = np.nan
    return out


def lambdas(
    factor: Factor, theta: np.ndarray, T_inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lambda of each lane in the user's coordinates (L, q, q), and singular flags.

    Not triangular: a factor of the covariance all the same.
    """
    covariance = factor.covariance
    singular = _engine.next_to_zero(theta.T, np.array(covariance.is_scale))
    return T_inverse @ covariance.matrix(theta.T), singular


def packed(design: Design, factor: Factor, lam: np.ndarray) -> np.ndarray:
    """(L, m) theta of the terms, in the user's coordinates."""
    return _engine.packed(design, _engine.per_term_square((factor,), (lam,)))
