"""What a fit would be without each level of a factor, or each row.

All of it is estimated anew, variances too, in one batch (``many.left_out``); or, for
rows, at covariances held, where everything has a closed form.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import JaxGLMMWarning, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting import components
from jaxglmm.many.left_out import by_downdating, log_determinants, without_each
from jaxglmm.many.record import FittedModels
from jaxglmm.postestimation.groups import groups_of
from jaxglmm.postestimation.influence import rows as _rows
from jaxglmm.runtime.progress import bar

FEW = 60  # fits that a table may take for its covratio


@dataclass(frozen=True)
class Influence:
    """What each of m levels (or rows) does to a fit; shows itself.

    by: the factor, "row" for rows; labels: (m,); names: (p,) of coefficients
    estimates, vcov: (p,) and (p, p) of the whole fit
    coefficients, se: (m, p) without each; covratio: (m,) det of their covariance
    without it over that of all, above one where the level sharpens the estimates
    variances: frame (m, k), sds and dispersion parameters without each; all: these of
    the whole fit
    hat: (m,) leverages, of rows; converged: (m,)
    summed: whether covratio is by sums, and not a fit for each
    """

    by: str
    labels: np.ndarray
    names: tuple[str, ...]
    estimates: np.ndarray
    vcov: np.ndarray
    coefficients: np.ndarray
    se: np.ndarray
    determinants: Callable[[], np.ndarray]
    variances: pd.DataFrame
    all: dict[str, float]
    converged: np.ndarray
    hat: np.ndarray | None = None
    distance: np.ndarray | None = None
    summed: bool = True

    @property
    def dfbeta(self) -> np.ndarray:
        """(m, p) coefficients without each less those of all (lme4's sign)."""
        return self.coefficients - self.estimates

    @property
    def dfbetas(self) -> np.ndarray:
        """(m, p) ``dfbeta`` over the standard errors without each."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.dfbeta / self.se

    @cached_property
    def cook(self) -> np.ndarray:
        """(m,) Cook's distance, d'C^-1 d / p (m - p) / m, d the ``dfbeta``.

        The last factor is lme4's (influence.ME and HLMdiag go without), and left out
        where there are no more levels than coefficients. Of rows at covariances held it
        is that of the hat matrix, as lme4's ``cooks.distance`` of a fit.
        """
        if self.distance is not None:
            return self.distance
        m, p = self.coefficients.shape
        if not p:
            return np.zeros(m)
        root = np.linalg.cholesky(self.vcov)
        d = np.linalg.solve(root, np.nan_to_num(self.dfbeta).T)
        found = np.sum(d * d, axis=0) / p * ((m - p) / m if m > p else 1.0)
        return np.where(np.isfinite(self.dfbeta).all(axis=1), found, np.nan)

    @cached_property
    def covratio(self) -> np.ndarray:
        """(m,) det(C without) / det(C); found when it is first asked for."""
        return self.determinants()

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a level: cook, covratio, hat of rows, dfbetas of each coefficient.

        Without covratio where that takes a fit for each of many (``.covratio`` has it).
        """
        found = {"cook": self.cook}
        if self.summed or len(self) <= FEW:
            found["covratio"] = self.covratio
        if self.hat is not None:
            found["hat"] = self.hat
        for name, values in zip(self.names, self.dfbetas.T, strict=True):
            found[f"dfbetas_{name}"] = values
        return pd.DataFrame(found, index=pd.Index(self.labels, name=self.by))

    def top(self, n: int = 5) -> pd.DataFrame:
        """The n rows of ``table`` with the largest Cook's distances."""
        n = _arguments.whole("n", n, 1, None, error=NotApplicableError)
        return self.table.sort_values("cook", ascending=False).head(n)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shown = min(5, len(self))
        lost = int((~self.converged).sum())
        note = f"; {lost} could not be fitted without" if lost else ""
        order = np.argsort(-np.nan_to_num(self.cook), kind="stable")[:shown]
        most = ", ".join(f"{self.labels[i]} {self.cook[i]:.3g}" for i in order)
        what = "rows" if self.by == "row" else f"levels of {self.by}"
        return f"<Influence of {len(self)} {what}; Cook's distance: {most}{note}>"


def influence(
    fit: Any, by: Any = None, refit: Any = None, progress: Any = False
) -> Influence:
    """See ``Fit.influence``."""
    if fit.design.p == 0:
        raise NotApplicableError("influence() is on fixed effects, and there are none")
    if _arguments.is_among(by, ("row", "rows")):
        by = None
    name, codes, labels = groups_of(fit.design, by)
    if refit is None:
        refit = by is not None or not _has_closed_form(fit)
    refit = _arguments.flag("refit", refit)
    if not refit and by is not None:
        raise NotApplicableError(
            "influence(refit=False) has covariances held, of rows alone: levels are "
            "left out by fitting again"
        )
    if not refit:
        return _held(fit, labels)
    used = np.unique(codes[fit.design.counted])
    if len(used) < 3:
        raise NotApplicableError(
            f"influence(by={name!r}): with {len(used)} levels the fits without one "
            "have a single level; it takes three"
        )
    with bar(len(labels), _arguments.flag("progress", progress), " fits") as shown:
        found = without_each(fit, np.asarray(codes), len(labels), shown)
    hat = None
    if by is None and _has_hat(fit):
        hat = _rows.hat_values(fit)
    return _of_fits(fit, found, "row" if name is None else name, labels, codes, hat)


def _has_hat(fit: Any) -> bool:
    kinds = ("ordinal", "nominal")
    several = fit.design.parts
    categories = not fit.is_linear and fit.family.family_kind in kinds
    return fit.design.residual is None and not several and not categories


def _has_closed_form(fit: Any) -> bool:
    return fit.is_linear and fit.design.residual is None and bool(fit.design.terms)


def _held(fit: Any, labels: np.ndarray) -> Influence:
    if not _has_closed_form(fit):
        raise NotApplicableError(
            "influence(refit=False) is of linear mixed models with independent "
            "residuals; leave rows out by refit=True"
        )
    beta, vcov, ratio = _rows.held(fit)
    return Influence(
        by="row",
        labels=labels,
        names=tuple(fit.coefficient_names),
        estimates=np.asarray(fit.coefficients),
        vcov=np.asarray(fit.estimates.vcov),
        coefficients=beta,
        se=np.sqrt(np.diagonal(vcov, axis1=1, axis2=2)),
        determinants=lambda: ratio,
        variances=pd.DataFrame(index=pd.Index(labels, name="row")),
        all={},
        converged=np.ones(len(labels), bool),
        hat=_rows.hat_values(fit),
        distance=_rows.cooks_distance(fit),
    )


def _of_fits(
    fit: Any,
    found: FittedModels,
    name: str,
    labels: np.ndarray,
    codes: np.ndarray,
    hat: np.ndarray | None,
) -> Influence:
    own = {}
    for p in components.parameters(fit.design, fit.estimates, fit.is_linear):
        own[p.label] = float(p.value)
    own |= {key: float(value) for key, value in fit.dispersions.items()}
    names = list(found.coefficient_names)
    rest = found.frame().drop(columns=names)
    rest.index = pd.Index(labels, name=name)
    vcov = np.asarray(fit.coefficient_covariance())
    return Influence(
        by=name,
        labels=np.asarray(labels),
        names=tuple(names),
        estimates=np.asarray(fit.coefficients),
        vcov=vcov,
        coefficients=found.coefficients,
        se=np.asarray(found.se),
        determinants=lambda: _ratios(fit, found, codes, vcov),
        variances=rest,
        all=own,
        converged=np.asarray(found.converged),
        hat=hat,
        summed=by_downdating(fit, codes) and fit.vcov_type == "asymptotic",
    )


def _ratios(
    fit: Any, found: FittedModels, codes: np.ndarray, vcov: np.ndarray
) -> np.ndarray:
    """det(C without) / det(C) of each; one factor by its sums, else a fit for each."""
    whole = np.linalg.slogdet(vcov)[1]
    if by_downdating(fit, codes) and fit.vcov_type == "asymptotic":
        return np.exp(log_determinants(fit, found) - whole)
    out = np.full(len(found), np.nan)
    for i in np.flatnonzero(np.isfinite(found.coefficients).all(axis=1)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JaxGLMMWarning)
            own = np.asarray(found.one(int(i)).coefficient_covariance())
        if own.shape == vcov.shape:
            out[i] = np.exp(np.linalg.slogdet(own)[1] - whole)
    return out
