"""Data sets that are one data set without each of its levels: lanes by downdating.

Where the levels are those of the one grouping factor a lane is the sums of all levels
with one set to zero, so rows are read once, and a thousand lanes need a thousand times
the levels' sums, never the rows. Other groups of rows are missing values of a response.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import block_diag

from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting.again import fitted_to
from jaxglmm.fitting.kinds import Kinds, record
from jaxglmm.formula.design import Design
from jaxglmm.many import generalised, scheduler
from jaxglmm.many import linear as fits_linear
from jaxglmm.many import plan as engines
from jaxglmm.many.block_lanes import residual_names
from jaxglmm.many.collection import Alone, ModelSource
from jaxglmm.many.columns import PENDING
from jaxglmm.many.linear import LinearLanes, OwnLanes, Settings
from jaxglmm.many.ragged import _cholesky, _solve
from jaxglmm.many.record import FittedModels
from jaxglmm.many.responses import Responses
from jaxglmm.many.stages import Plan, Stage
from jaxglmm.many.subset import subset
from jaxglmm.model import covariances
from jaxglmm.model.covariances.host import host_lambdas
from jaxglmm.runtime.devices import choose
from jaxglmm.structure import per_dataset_design as own
from jaxglmm.structure.fixed import EXACT
from jaxglmm.structure.moments_of_design import Moments

TOLERANCE = 1e-8


class LevelsLeftOut(OwnLanes):
    """All levels but one, a lane for each; see ``linear.LanesOfData``.

    A, X, XX, y, ee: sums of Z'WZ, Z'WX, X'WX, Z'We, e'We of each level, the level last,
    e what least squares leave of the response
    """

    cells, chunks, apart = 4096, 4, True

    def __init__(self, design: Design, moments: Moments):
        (factor,) = moments.factors
        J = factor.n_levels
        self.where, self.levels, self.numbers = moments, J, 8 * J
        keep = slice(None) if moments.keep is None else moments.keep
        X = moments.basis.whole
        Z = np.ones((len(X), 1)) if factor.values is None else factor.values
        y = design.y if design.offset is None else design.y - design.offset
        self.response, self.codes = y[keep], factor.codes
        w = np.ones(len(X)) if design.weights is None else design.weights[keep]
        self.whole = X.T @ (w[:, None] * X)
        self.b = np.zeros(X.shape[1])
        e = self.response.copy()
        for _ in range(2):  # the second takes off what rounding left
            change = np.linalg.solve(self.whole, X.T @ (w * e))
            self.b, e = self.b + change, e - X @ change
        by = _Sums(factor.codes, J)
        self.A = by.products(Z, Z, w)
        self.X, self.XX = by.products(Z, X, w), by.products(X, X, w)
        self.y, self.Xe = by.times(Z, w * e), by.times(X, w * e)
        self.ee, self.yy = by.one(w * e * e), by.one(w * self.response**2)
        self.n, self.log_w = by.one(np.ones(len(X))), by.one(np.log(w))

    def lanes(self, which: np.ndarray) -> tuple[own.DatasetProducts, np.ndarray]:
        """Without levels ``which`` (L,)."""
        rest = np.arange(self.levels)[:, None] != which
        n = self.n.sum() - self.n[which]
        XX = self.whole[..., None] - self.XX[..., which]
        gone = self.Xe[:, which]
        factor, dependent = _cholesky(XX)
        change = -_solve(factor, gone)
        rr = self.ee.sum() - self.ee[which] + np.sum(change * gone, axis=0)
        scale = np.sqrt(np.maximum(rr, 0.0) / n)
        size = np.sqrt((self.yy.sum() - self.yy[which]) / n)
        exact = ~(scale > EXACT * size)
        y = self.y[..., None] - np.einsum("qpj,pl->qjl", self.X, change)
        y = np.where(rest, y / scale, 0.0)
        there = own.DatasetProducts(
            np.where(rest, self.A[..., None], 0.0),
            np.where(rest, self.X[..., None], 0.0),
            XX,
            (self.A.sum(axis=-1)[..., None] - self.A[..., which]) / n,
            n,
            np.full(len(which), self.levels - 1.0),
            y,
            np.zeros_like(gone),
            n.copy(),
            self.b[:, None] + change,
            scale,
            self.log_w.sum() - self.log_w[which],
            self._constant(which, exact),
            exact.astype(int),
            dependent.astype(int),
        )
        return there, np.zeros(len(which), int)

    def _constant(self, which: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """Whether what is left of the response is one number, among ``exact`` ones."""
        out = np.zeros(len(which), int)
        for k in np.flatnonzero(exact):
            rest = self.response[self.codes != which[k]]
            out[k] = len(rest) > 0 and np.ptp(rest) == 0
        return out


class _Sums:
    """Sums over the rows of each of J levels, the level last."""

    def __init__(self, codes: np.ndarray, J: int):
        self.codes, self.J = codes, J

    def one(self, v: np.ndarray) -> np.ndarray:
        """(n,) -> (J,)."""
        return np.bincount(self.codes, v, minlength=self.J)[: self.J]

    def times(self, A: np.ndarray, v: np.ndarray) -> np.ndarray:
        """A (n, a), v (n,) -> (a, J)."""
        found = [self.one(x * v) for x in A.T]
        return np.stack(found) if found else np.zeros((0, self.J))

    def products(self, A: np.ndarray, B: np.ndarray, w: np.ndarray) -> np.ndarray:
        """A (n, a), B (n, b) -> (a, b, J)."""
        found = [self.times(B, x * w) for x in A.T]
        return np.stack(found) if found else np.zeros((0, B.shape[1], self.J))


class WithoutGroup:
    """Responses of which those of one group of rows are missing, column by column.

    Given to ``Responses``, which asks for a few columns at a time.
    """

    def __init__(self, y: np.ndarray, codes: np.ndarray, count: int):
        self.y, self.codes, self.shape = y, codes, (len(y), count)

    def __getitem__(self, where: Any) -> np.ndarray:
        rows, columns = where
        which = np.arange(self.shape[1])[columns]
        out = np.where(self.codes[:, None] == which, np.nan, self.y[:, None])
        return out[rows]


@dataclass(frozen=True)
class GroupsLeftOut:
    """Where the fits without each group of rows come from, one by one.

    of: the fit of all rows; codes: (n,) the group of each row
    """

    of: Any
    codes: np.ndarray

    @property
    def family(self) -> Any:
        """That of the response; None of a linear model."""
        return None if self.of.is_linear else self.of.family

    def fit(self, i: int, kinds: Kinds = record) -> Any:
        """The fit without group i."""
        design = self.of.design
        used = np.zeros(design.n, bool)
        used[design.counted] = True
        rest = np.flatnonzero((self.codes != i) & used)
        return fitted_to(self.of, subset(design, rest), kinds)


def without_each(fit: Any, codes: np.ndarray, count: int, bar: Any) -> FittedModels:
    """The model without each of ``count`` groups of rows, (count,) fits.

    Args:
        fit: of all rows.
        codes: (n,) the group of each row.
        count: number of groups.
        bar: progress.
    """
    source = GroupsLeftOut(fit, codes)
    plan = _plan(fit, source, count)
    table, saved = _empty(plan)
    scheduler.run(table, plan, bar, saved)
    return FittedModels.from_table(table, plan.columns, source=source)


def _empty(plan: Plan) -> tuple[np.ndarray, Any]:
    out = np.full((len(plan), plan.columns.width), np.nan)
    out[:, -1] = PENDING
    return out, lambda: None


def _plan(fit: Any, source: GroupsLeftOut, count: int) -> Plan:
    """Lanes by downdating, lanes of missing values, or one fit after the other."""
    design = fit.design
    if fit.is_linear:
        columns = fits_linear.columns(design)
    else:
        columns = generalised.generalised_columns(design, fit.family)
    alone = Alone(source, columns)
    plain = design.residual is None and not design.parts and design.terms
    if by_downdating(fit, source.codes):
        devices = choose("all", float(count) * design.terms[0].n_levels)
        data = LevelsLeftOut(design, fit.engine.moments)
        settings = Settings(bool(fit.reml), TOLERANCE, fit.ddf == "satterthwaite")
        engine = LinearLanes(design, data, settings, devices)
        stage = Stage(engine, np.arange(count), devices.threads)
        return Plan((stage,), None, alone, columns, count, "", devices.describe())
    if plain and _by_lanes(fit):
        y = WithoutGroup(design.y, source.codes, count)
        given = (design.weights, design.offset, design.trials)
        family = None if fit.is_linear else fit.family
        how = Maximise(bool(fit.reml)) if fit.is_linear else fit.marginal
        many = ModelSource(design, Responses(y, design.n), None, *given, how, family)
        return replace(engines.plan(many, "all"), alone=alone)
    if design.residual is not None:
        columns = replace(columns, dispersion=residual_names(design))
        alone = Alone(source, columns)
    stage = Stage(alone, np.arange(count), 1)
    return Plan((stage,), None, alone, columns, count, "", "cpu")


def by_downdating(fit: Any, codes: np.ndarray) -> bool:
    """Whether the groups are the levels of the one factor of a linear model."""
    design = fit.design
    if design.residual is not None or design.parts or not design.terms:
        return False
    own_codes = np.array_equal(codes, design.terms[0].codes)
    return fit.is_linear and fits_linear.suits(design) and own_codes


def log_determinants(fit: Any, found: FittedModels) -> np.ndarray:
    """(J,) log det of the covariance of beta without each level of the one factor.

    sigma^2 (X'V^-1X)^-1 at each one's own variances; X'V^-1X is a sum over levels of
    X_g'X_g - X_g'Z_g Lambda (Lambda'Z_g'Z_g Lambda + I)^-1 Lambda'Z_g'X_g.
    """
    design = fit.design
    p, here = design.p, design.counted
    Z = np.concatenate([t.values for t in design.terms], axis=1)[here]
    X = design.X[here]
    w = np.ones(len(X)) if design.weights is None else design.weights[here]
    by = _Sums(design.terms[0].codes[here], design.terms[0].n_levels)
    A = np.moveaxis(by.products(Z, Z, w), -1, 0)
    ZX = np.moveaxis(by.products(Z, X, w), -1, 0)
    XX = np.moveaxis(by.products(X, X, w), -1, 0)
    lams = host_lambdas(found.theta, covariances.of_terms(design.terms))
    out = np.full(len(found), np.nan)
    for i in np.flatnonzero(np.isfinite(found.theta).all(axis=1)):
        lam = block_diag(*(x[i] for x in lams))
        M = lam.T @ A @ lam + np.eye(len(lam))
        inner = lam.T @ ZX
        each = XX - np.swapaxes(inner, 1, 2) @ np.linalg.solve(M, inner)
        total = each.sum(axis=0) - each[i]
        sign, size = np.linalg.slogdet(total)
        if sign > 0:
            out[i] = 2 * p * np.log(found.sigma[i]) - size
    return out


def _by_lanes(fit: Any) -> bool:
    design = fit.design
    if fit.is_linear:
        return fits_linear.suits(design)
    # a family that was made of the categories of all rows has no lanes here
    if fit.family.family_kind in ("ordinal", "nominal"):
        return False
    given = (design.weights, design.offset, design.trials)
    source = ModelSource(design, None, None, *given, fit.marginal, fit.family)
    return generalised.suits(source)
