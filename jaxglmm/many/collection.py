"""Where the data sets of a ``Fits`` came from: each one's design, and its full fit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _status
from jaxglmm._brief import brief
from jaxglmm._errors import DataError, JaxGLMMError, JaxGLMMWarning, ModelError
from jaxglmm.fitting.fit_design import fit_correlated, fit_design, fit_generalised
from jaxglmm.fitting.kinds import Kinds, record
from jaxglmm.formula.categories import key
from jaxglmm.formula.design import Design
from jaxglmm.many.categories import without_empty
from jaxglmm.many.columns import KeptColumns
from jaxglmm.many.responses import Responses
from jaxglmm.many.subset import subset
from jaxglmm.model import covariances

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.many.ragged import SplitTable

PerResponse = np.ndarray | Responses | None


@brief
@dataclass(frozen=True)
class ModelSource:
    """The data and the model of all data sets.

    design: of all rows; responses: one a column, or None where ``split`` cuts the rows
    into data sets; weights, offset, trials: (n,), or one column a response; model: the
    estimator; family: None for a linear model; infinite: (D,) data sets that were left
    out for infinite values, or None.
    """

    design: Design
    responses: Responses | None
    split: SplitTable | None
    weights: PerResponse
    offset: PerResponse
    trials: PerResponse
    model: Any
    family: Any = None
    tol: float = 1e-8
    satterthwaite: bool = True
    infinite: np.ndarray | None = None

    def design_of(self, i: int) -> Design:
        """The design of one data set, its own rows and response.

        Raises:
            DataError, ModelError: where too little is left of it.
        """
        if self.infinite is not None and self.infinite[i]:
            raise DataError(f"data set {i} has infinite values")
        return without_empty(self._rows_of(i), self.family, i)

    def _rows_of(self, i: int) -> Design:
        if self.responses is None:
            if self.split is None:
                raise DataError("there is neither a matrix of responses nor a split")
            return subset(self.design, self.split.rows(i))
        y = self.responses.take(np.array([i]))[:, 0]
        given = {
            name: _column(getattr(self, name), i)
            for name in ("weights", "offset", "trials")
        }
        there = ~np.isnan(y)
        for values in given.values():
            if values is not None:
                there &= ~np.isnan(values.reshape(-1, len(y))).any(axis=0)
        if there.all():
            return replace(self.design, y=y, **given)
        rows = np.flatnonzero(there)
        kept = {k: None if v is None else v[..., rows] for k, v in given.items()}
        return subset(self.design, rows, y=y[rows], **kept)

    def usable_design_of(self, i: int) -> Design:
        """The same; refuses values that no model takes.

        Raises:
            DataError: infinite values, negative weights.
        """
        design = self.design_of(i)
        for name in ("y", "offset", "weights"):
            values = getattr(design, name)
            if values is not None and not np.isfinite(values).all():
                raise DataError(f"data set {i}: {name} has infinite values")
        if design.weights is not None and (design.weights < 0).any():
            raise DataError(f"data set {i}: there are negative weights")
        return design

    def fit(self, i: int, kinds: Kinds = record) -> Any:
        """The full fit of one data set; kinds: classes of what is made, by name."""
        design = self.usable_design_of(i)
        if design.residual is not None:
            ddf = "satterthwaite" if self.satterthwaite else "residual"
            return fit_correlated(design, self.model, self.tol, kinds=kinds, ddf=ddf)
        if self.family is None:
            return fit_design(
                design,
                self.model,
                self.tol,
                compute_satterthwaite=self.satterthwaite,
                make=kinds("linear"),
            )
        return fit_generalised(design, self.family, self.model, self.tol, kinds=kinds)


def _column(values: PerResponse, i: int) -> np.ndarray | None:
    if isinstance(values, Responses):
        return values.take(np.array([i]))[:, 0]
    return values


def alone(source: ModelSource, columns: KeptColumns, i: int) -> np.ndarray:
    """One row of the table from a fit of its own; its failure is a status."""
    row = np.full(columns.width, np.nan)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JaxGLMMWarning)
            levels = getattr(source.family, "levels", None)
            return row_of(source.fit(i), columns, levels)
    except JaxGLMMError as error:
        row[-1] = status_of(error)
    return row


class Alone:
    """One fit after the other: what no program of lanes takes, or has finished.

    No engine of its own but the last resort of all of them, by the same protocol, so
    that its pieces run wherever theirs do.
    """

    lanes, surer_alone = 1, False

    def __init__(self, source: Any, columns: KeptColumns):
        self.source, self.columns = source, columns

    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table, whatever the steps."""
        return np.stack([alone(self.source, self.columns, int(i)) for i in which])


def status_of(error: JaxGLMMError) -> int:
    """What a data set is said to be that ``error`` befell: its own, or its kind's."""
    if error.status is not None:
        return error.status
    if isinstance(error, DataError):
        return _status.BAD_VALUES
    return _status.TOO_FEW if isinstance(error, ModelError) else _status.NOT_FINITE


def row_of(fit: FittedModel, columns: KeptColumns, levels: Any = None) -> np.ndarray:
    """A fit as a row of the table; NaN for coefficients that it has not.

    levels: all categories, of which it may not have some.
    """
    place = {name: k for k, name in enumerate(columns.coefficients)}
    at = [place[name] for name in fit.coefficient_names]

    def by_name(values: Any) -> np.ndarray:
        out = np.full(len(place), np.nan)
        out[at] = values
        return out

    scale = _scale(fit)
    lams = [scale * lam for lam in fit.estimates.lam]
    sd = covariances.standard_deviations(fit.design.terms, lams)
    linear = fit.is_linear
    return columns.table(
        1,
        coefficients=by_name(fit.coefficients),
        se=by_name(fit.se),
        df=by_name(fit.df_satterthwaite if linear else np.inf),
        p_values=by_name(fit.p_values),
        sd=np.concatenate([np.zeros(0), *sd]),
        theta=np.asarray(fit.theta),
        **_dispersions(fit, columns, levels),
        sigma=np.float64(fit.sigma if linear else np.nan),
        log_likelihood=np.float64(fit.log_likelihood),
        df_sigma=np.float64(_df_sigma(fit) if linear else np.nan),
        decrement=np.float64(fit.estimates.decrement),
        steps=np.float64(fit.n_iter),
        singular=np.float64(fit.is_singular),
        separated=np.float64(fit.separation is not None),
        status=np.float64(fit.estimates.status),
    )[0]


def _dispersions(fit: Any, columns: KeptColumns, levels: Any) -> dict[str, np.ndarray]:
    """Dispersion parameters, of thresholds those of categories that are there."""
    if not columns.errors:
        return {"dispersion": np.array([*fit.dispersions.values()])}
    names, found = columns.dispersion, fit.threshold_coefficients
    by_name = found.reindex(list(names))
    estimate = by_name["estimate"].to_numpy(float)
    error = by_name["std_error"].to_numpy(float)
    if fit.cumulative.thresholds == "flexible" and len(found) < len(names):
        place = {key(x): k for k, x in enumerate(levels)}
        own = [place[key(x)] for x in fit.levels]
        below = np.searchsorted(own, np.arange(len(names)), side="right")
        inner = np.clip(below - 1, 0, len(found) - 1)
        infinite = np.where(below == 0, -np.inf, np.inf)
        inside = (below > 0) & (below < len(own))
        estimate = np.where(inside, found["estimate"].to_numpy()[inner], infinite)
        error = np.where(inside, found["std_error"].to_numpy()[inner], np.nan)
    return {"dispersion": estimate, "dispersion_se": error}


def _scale(fit: FittedModel) -> float:
    return float(fit.estimates.sigma) if fit.is_linear else 1.0


def _df_sigma(fit: FittedModel) -> float:
    """Degrees of freedom of the residual variance, from its asymptotic variance."""
    if fit.design.residual is not None:
        return np.nan
    if fit.design.p == 0:
        return float(fit.nobs)
    return float(2 / fit.satterthwaite_parts.A[-1, -1])
