"""Many linear mixed models of any structure: the single fit, vmapped or in a loop.

For several grouping factors, many random effects a level or many fixed effects. The
design is built once; lanes go through ``response_lanes`` with whatever system the
structure asks for, and the derivatives for degrees of freedom lane by lane.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm import _status
from jaxglmm.estimate import response_lanes as lanes
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting.coefficients import t_p_values
from jaxglmm.fitting.degrees_of_freedom import FLAT
from jaxglmm.formula.design import Design
from jaxglmm.many.columns import AGAIN, ALONE
from jaxglmm.many.linear import USABLE, Settings, columns
from jaxglmm.many.pieces import OnHost, placed
from jaxglmm.many.responses import Responses, marked, without_offset
from jaxglmm.model.covariances import standard_deviations
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure.fixed import EXACT

MEMORY = 100_000_000  # bytes of responses at once


class GenericLinear(OnHost):
    """One design of any structure, responses as columns without missing rows."""

    surer_alone = True

    @double_precision
    def __init__(
        self,
        design: Design,
        responses: Responses,
        offset: np.ndarray | Responses | None,
        settings: Settings,
    ):
        self.design, self.responses, self.offset = design, responses, offset
        self.settings = settings
        self.columns = columns(design)
        chunk = lanes.chunk_size(self.engine.problem)
        self.chunk = 2 ** int(np.log2(chunk))
        most = max(1, MEMORY // (8 * design.n * self.chunk))
        self.lanes = self.chunk * min(most, 8)

    @placed
    def engine(self) -> _engine.Engine:
        """The single fit's."""
        return _engine.build(self.design, Maximise(self.settings.reml))

    @double_precision
    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for responses ``which`` (L,), at most ``steps`` steps."""
        m, engine = self.engine.moments, self.engine
        Y = without_offset(self.responses, self.offset, which, m.keep)
        E, b, scale, exact = _residuals(m, Y)
        weighted = E if m.weights is None else E * m.weights[:, None]
        Zy = tuple(
            jnp.asarray(np.swapaxes(cross.times(f, weighted, size), 0, 1))
            for f, size in zip(m.factors, m.sizes, strict=True)
        )
        Xy = weighted.T @ m.basis.whole
        yy = np.einsum("nd,nd->d", E, weighted)
        responses = lanes.ResponseProducts(Zy, jnp.asarray(Xy), jnp.asarray(yy))
        chunk = min(self.chunk, len(which))
        found = lanes.fit_lanes(
            engine.estimator,
            engine.problem,
            responses,
            None,
            self.settings.stop,
            chunk,
            np.int64(steps),
        )
        out = jax.tree.map(np.asarray, found)
        curvature = jax.tree.map(
            np.asarray,
            lanes.curvatures(
                engine.problem, found.theta, found.sigma2, responses, self.settings.reml
            ),
        )
        status = out.status.copy()
        status[exact] = _status.EXACT
        status[np.ptp(Y, axis=0) == 0] = _status.CONSTANT
        return self._table(out, curvature, b, scale, marked(Y, status))

    def _table(self, out, curvature, b, scale, status) -> np.ndarray:
        m, reml = self.engine.moments, self.settings.reml
        back = m.fixed.R_inverse
        beta = (b + scale * out.beta.T).T @ back.T
        sigma = np.sqrt(out.sigma2) * scale
        V = curvature.vcov
        C = np.einsum("ja,dab,jb->dj", back, V, back, optimize=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            se = np.sqrt(C) * scale[:, None]
            df, df_sigma = _satterthwaite(curvature, C, back)
            if not self.settings.satterthwaite:
                df = np.full_like(df, m.n - len(m.fixed.R))
            p_values = t_p_values(beta / se, df)
            log_scale = 2 * np.log(scale)
        N = m.n - (len(m.fixed.R) if reml else 0)
        criterion = out.criterion + N * log_scale - m.log_weights
        if reml:
            criterion = criterion + m.fixed.log_det
        lam, theta, singular = lambdas(self.design, self.engine, out.theta)
        found = standard_deviations(self.design.terms, lam)
        sd = [x * sigma[:, None] for x in found]
        reproduced = (out.sigma2 < _engine.NO_RESIDUAL) & np.isin(status, USABLE)
        status = np.where(reproduced, _status.NO_RESIDUAL, status)
        status = np.where(status == _status.MAX_STEPS, AGAIN, status)
        short = (status == _status.CONVERGED) & (_left(curvature) > self.settings.tol)
        status = np.where(short | (status == _status.STALLED), ALONE, status)
        table = self.columns.table(
            len(sigma),
            coefficients=beta,
            se=se,
            df=df,
            p_values=p_values,
            sd=np.concatenate(sd, axis=1),
            theta=theta,
            sigma=sigma,
            log_likelihood=-criterion / 2,
            df_sigma=df_sigma,
            decrement=np.full(len(sigma), np.nan),
            steps=out.steps,
            singular=singular,
            status=status,
        )
        table[~np.isin(status, USABLE), :-1] = np.nan
        return table


def _residuals(m, Y: np.ndarray):
    """Residuals of least squares (n, L) of unit size, coefficients, sizes, flags."""
    w = None if m.weights is None else m.weights[:, None]
    X = m.basis.whole
    b = X.T @ (Y if w is None else Y * w)
    E = Y - X @ b
    change = X.T @ (E if w is None else E * w)
    E -= X @ change
    n = len(Y)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.sum(E * E if w is None else E * E * w, axis=0) / n)
        size = np.sqrt(np.sum(Y * Y if w is None else Y * Y * w, axis=0) / n)
        return E / scale, b + change, scale, ~(scale > EXACT * size)


def _left(curvature) -> np.ndarray:
    """(D,) Newton decrements by the exact Hessian, zero where that is not positive."""
    H, g = curvature.hessian, curvature.score
    good = np.isfinite(H).all(axis=(1, 2)) & np.isfinite(g).all(axis=1)
    values, vectors = np.linalg.eigh(np.where(good[:, None, None], H, np.eye(len(g.T))))
    good &= values[:, 0] > FLAT * values[:, -1]
    along = np.einsum("dij,di->dj", vectors, g)
    return np.where(good, np.sum(along**2 / np.where(values > 0, values, 1.0), 1), 0.0)


def _satterthwaite(curvature, C: np.ndarray, back: np.ndarray):
    """(D, p) degrees of freedom and (D,) those of the residual variance.

    As in ``fitting.degrees_of_freedom``: flat directions are left out.
    """
    H = curvature.hessian
    finite = np.isfinite(H).all(axis=(1, 2))
    values, vectors = np.linalg.eigh(
        np.where(finite[:, None, None], H, np.eye(H.shape[1]))
    )
    keep = values > FLAT * np.abs(values).max(axis=1, keepdims=True)
    half = vectors * (keep / np.sqrt(np.where(keep, values, 1.0)))[:, None, :]
    g = np.einsum("ja,dabk,jb->djk", back, curvature.dvcov, back, optimize=True)
    z = np.einsum("djk,dkl->djl", g, half)
    df = C**2 / np.sum(z**2, axis=-1)
    df_sigma = 1 / np.sum(half[:, -1] ** 2, axis=-1)
    df[~finite], df_sigma[~finite] = np.nan, np.nan
    return df, df_sigma


def lambdas(design: Design, engine: _engine.Engine, theta: np.ndarray):
    """Of each term (D, q, q) a root of its covariance; theta (D, m); singular (D,)."""
    terms = _engine.roots(engine.factors, _engine.lambdas(engine.base, theta))
    singular = _engine.next_to_zero(theta, engine.scales)
    packed = _engine.packed(design, terms) if terms else np.zeros((len(theta), 0))
    return terms, packed, singular
