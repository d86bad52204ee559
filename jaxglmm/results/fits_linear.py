"""Many responses of one linear mixed model: blocks of responses to rows of a table."""

from __future__ import annotations

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._precision import double_precision
from jaxglmm.batch import linear, shared
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.formula.design import Design
from jaxglmm.model import assemble
from jaxglmm.results import engine as _engine
from jaxglmm.results.coefficients import t_p_values
from jaxglmm.results.fits_columns import Columns
from jaxglmm.structure.build import Moments
from jaxglmm.structure.factors import Factor

STEPS = 100
CELLS = 8192  # types of levels x lanes in one chunk
LANES = 8, 4096


def columns(design: Design) -> Columns:
    """What is kept of each fit."""
    sd = [f"sd_{name}|{t.label}" for t in design.terms for name in t.names]
    m = sum(
        len(t.names) * (len(t.names) + 1) // 2 if t.covariance == "us" else len(t.names)
        for t in design.terms
    )
    return Columns(tuple(design.x_names), tuple(sd), m)


class SharedLinear:
    """One design, responses as columns; all rows of a response present."""

    @double_precision
    def __init__(
        self, design: Design, moments: Moments, estimator: Maximise, tol: float
    ):
        self.design, self.moments = design, moments
        self.reml, self.tol = estimator.reml, _engine.SAFETY * tol
        self.columns = columns(design)
        rows, groups = shared.rows(moments)
        self.types = groups.A.shape[2]
        self.on_device = jax.device_put(
            (rows, groups, moments.fixed.R_inverse[..., None])
        )

    @property
    def lanes(self) -> int:
        """Responses at once: what fits the cache."""
        return int(np.clip(2 ** int(np.log2(max(CELLS // self.types, 1))), *LANES))

    @double_precision
    def fit(self, Y: np.ndarray) -> np.ndarray:
        """Rows of the table for the columns of Y (n, L)."""
        rows, groups, back = self.on_device
        (pattern,) = (f.pattern for f in self.moments.factors)
        ready = shared.prepare(rows, Y)
        report = linear.fit(
            groups,
            ready.sums,
            back,
            np.float64(self.tol),
            np.int64(STEPS),
            pattern,
            self.reml,
        )
        ready, report = jax.tree.map(
            np.asarray,
            ((ready.least_squares, ready.scale, ready.constant, ready.exact), report),
        )
        return self._table(Y, ready, report)

    def _table(self, Y: np.ndarray, ready, report: linear.Report) -> np.ndarray:
        """In the user's coordinates, with names' places."""
        least_squares, scale, constant, exact = ready
        m = self.moments
        fixed = m.fixed
        beta = (least_squares + scale * report.beta).T @ fixed.R_inverse.T
        sigma = np.sqrt(report.sigma2) * scale
        lam, sd, singular = lambdas(m.factors[0], report.theta)
        se = (report.se * scale).T
        df = report.df.T
        log_scale = 2 * np.log(scale)
        N = m.n - (len(fixed.R) if self.reml else 0)
        criterion = report.criterion + N * log_scale - m.log_weights
        if self.reml:
            criterion = criterion + fixed.log_det
        status = np.where(
            report.sigma2 < _engine.NO_RESIDUAL, _status.NO_RESIDUAL, report.status
        )
        status = np.where(exact, _status.EXACT, status)
        status = np.where(constant, _status.CONSTANT, status)
        status = np.where(np.isfinite(Y).all(axis=0), status, _status.BAD_VALUES)
        with np.errstate(invalid="ignore", divide="ignore"):
            p_values = t_p_values(beta / se, df)
        table = np.empty((len(sigma), self.columns.width))
        self.columns.fill(
            table,
            {
                "coefficients": beta,
                "se": se,
                "df": df,
                "p_values": p_values,
                "sd": sd * sigma[:, None],
                "theta": packed(self.design, m.factors[0], lam),
                "sigma": sigma,
                "log_likelihood": -criterion / 2,
                "df_sigma": report.df_sigma,
                "decrement": report.decrement,
                "steps": report.steps,
                "singular": singular,
                "status": status,
            },
        )
        bad = ~np.isin(status, USABLE)
        table[bad, :-1] = np.nan
        return table


USABLE = (_status.CONVERGED, _status.MAX_STEPS, _status.STALLED, _status.NO_RESIDUAL)


def lambdas(
    factor: Factor, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lambda of each lane in the user's coordinates (L, q, q), relative sds, flags."""
    q, L = factor.q, theta.shape[1]
    internal = np.zeros((L, q, q))
    for a, (i, j) in enumerate(factor.pattern):
        internal[:, i, j] = theta[a]
    diagonal = np.abs(np.diagonal(internal, axis1=1, axis2=2))
    singular = diagonal.min(axis=1) < _engine.SINGULAR
    rotated = (
        internal if q == 1 and factor.T[0, 0] == 1.0 else factor.T_inverse @ internal
    )
    sd = np.sqrt(np.sum(rotated**2, axis=-1))
    return rotated, sd, singular


def packed(design: Design, factor: Factor, rotated: np.ndarray) -> np.ndarray:
    """(L, m) theta in lme4's order, diagonals not negative."""
    out = []
    for index, start, stop in sorted(factor.spans):
        x = rotated[:, start:stop, start:stop]
        q = stop - start
        if q > 1:
            finite = np.isfinite(x).all(axis=(1, 2))[:, None, None]
            x = np.linalg.qr(np.swapaxes(np.where(finite, x, 0.0), 1, 2), mode="r")
            x = np.where(finite, np.swapaxes(x, 1, 2), np.nan)
        x = x * np.where(np.diagonal(x, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, None, :]
        size = np.sqrt(np.sum(x**2, axis=-1))
        for j in range(q):
            for i in range(j, q if design.terms[index].covariance == "us" else j + 1):
                value = x[:, i, j]
                if i == j:  # rounding of an exact zero
                    value = np.where(value < 1e-12 * size[:, i], 0.0, value)
                out.append(value)
    return np.stack(out, axis=1)
