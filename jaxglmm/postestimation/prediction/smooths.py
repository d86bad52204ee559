"""Smooths of a fit: effective degrees of freedom, curves and their bands.

The degrees of freedom of a smooth are the trace of its block of the map from the
response's score to the coefficients (Wood 2017, section 5.4.2): its unpenalised
columns, and of the others one less what is left of their prior variance, tr(I - V /
Sigma), V their covariance given the data, that of beta in it. Bands are those of Nychka
(1988): the covariance of the coefficients given the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.components import covariances
from jaxglmm.fitting.conditional_variance import (
    conditional_covariance,
    prediction_variance,
)
from jaxglmm.fitting.kinds import is_correlated
from jaxglmm.fitting.random_effects import by_factor
from jaxglmm.formula.design import NewRows
from jaxglmm.formula.smooth_terms import SmoothCurve
from jaxglmm.formula.smooths import rows_of_smooth, smooths_of

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

POINTS = 100  # of a curve
SIDE = 30  # points a side of a surface


def found(fit: FittedModel, what: str) -> tuple[SmoothCurve, ...]:
    """The smooths of a fit that has some.

    Raises:
        NotApplicableError: it has none, or its residuals are correlated.
    """
    smooths = smooths_of(fit.design)
    if not smooths:
        raise NotApplicableError(
            f"{what}: the model has no smooth, such as s(x) in its formula"
        )
    if is_correlated(fit):
        raise NotApplicableError(
            f"{what}: beside correlated residuals and held parameters smooths have no "
            "degrees of freedom and bands here; predict() has their means"
        )
    return smooths


def table(fit: FittedModel) -> pd.DataFrame:
    """edf and columns (most degrees of freedom), one row a smooth."""
    smooths = found(fit, "smooths()")
    factors = list(by_factor(fit.design.terms))
    V = conditional_covariance(fit, with_beta=True)
    Sigma = covariances(fit.estimates)
    terms = [term.label for term in fit.design.terms]
    rows = {}
    for smooth in smooths:
        k = terms.index(smooth.label)
        prior = np.diagonal(Sigma[k])
        own = np.diagonal(V[factors.index(smooth.label)][0])
        share = np.where(prior > 0, own / np.where(prior > 0, prior, 1.0), 1.0)
        straight = len(_columns(fit, smooth))
        rows[smooth.label] = (
            straight + float(np.sum(1 - share)),
            straight + len(prior),
        )
    return pd.DataFrame.from_dict(rows, orient="index", columns=["edf", "columns"])


def _columns(fit: FittedModel, smooth: SmoothCurve) -> tuple[int, ...]:
    fixed = {t.name: t.columns for t in fit.design.fixed_terms}
    return fixed[smooth.label]


def curve(fit: FittedModel, label: str | None, at: Any, level: float) -> pd.DataFrame:
    """A smooth by itself at given places: estimate, std_error, lower, upper.

    Raises:
        NotApplicableError: no such smooth, or several and none named.
    """
    smooths = {s.label: s for s in found(fit, "smooth()")}
    _arguments.level(level)
    if label is None and len(smooths) == 1:
        label = next(iter(smooths))
    if not _arguments.is_among(label, smooths):
        raise NotApplicableError(
            f"smooth({_arguments.shown(label)}): name one of the smooths, "
            f"{', '.join(map(repr, smooths))}"
        )
    smooth = smooths[label]
    data = grid(fit, smooth) if at is None else at
    F, Z, data = rows_of_smooth(fit.design, smooth, data)
    design = fit.design
    X = np.zeros((len(F), design.p))
    X[:, list(_columns(fit, smooth))] = F
    zero = np.zeros(len(F), np.int32)
    terms = tuple(
        term.at_rows(zero, Z if term.label == smooth.label else None)
        for term in design.terms
    )
    b = next(
        x
        for term, x in zip(design.terms, fit.estimates.b, strict=True)
        if term.label == smooth.label
    )
    mean = X @ fit.coefficients + Z @ b[0]
    new = NewRows(X, np.zeros(len(F)), terms)
    se = np.sqrt(np.maximum(prediction_variance(fit, new), 0.0))
    from scipy.special import ndtri  # slow to import

    half = float(ndtri((1 + level) / 2)) * se
    return data.assign(
        estimate=mean, std_error=se, lower=mean - half, upper=mean + half
    )


def grid(fit: FittedModel, smooth: SmoothCurve) -> pd.DataFrame:
    """Places over the range of the data; a number to multiply by is one."""
    columns = fit.design.variables
    each = POINTS if len(smooth.variables) == 1 else SIDE
    axes = []
    for name in smooth.variables:
        x = np.asarray(columns[name], float)
        axes.append(np.linspace(x.min(), x.max(), each))
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    out = pd.DataFrame(places, columns=list(smooth.variables))
    if smooth.by is not None:
        out[smooth.by] = 1.0 if smooth.level is None else smooth.level
    return out
