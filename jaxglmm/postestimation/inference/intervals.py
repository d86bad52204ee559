"""Confidence intervals: Wald for fixed effects, profile and bootstrap for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.coefficients import wald
from jaxglmm.fitting.kinds import is_correlated, is_ordinal

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.many.record import FittedModels

METHODS = ("wald", "profile", "bootstrap")
KINDS = ("percentile", "basic")  # of bootstrap intervals


def confint(
    fit: FittedModel,
    level: float,
    method: str,
    n: int = 1000,
    seed=0,
    kind: str = "percentile",
) -> pd.DataFrame:
    """Frame of lower and upper, one row a parameter."""
    _arguments.level(level)
    if not _arguments.is_among(method, METHODS):
        raise NotApplicableError(
            f"confint(method={_arguments.shown(method)}): there are "
            f"{', '.join(map(repr, METHODS))}"
        )
    if method == "wald":
        df = fit.denominator_df
        limits = wald(fit.coefficients, fit.se, df, level)
        names = list(fit.coefficient_names)
        if is_ordinal(fit) and not fit.design.parts:
            table = fit.threshold_coefficients
            known = table["estimate"].to_numpy(), table["std_error"].to_numpy()
            own = wald(*known, np.full(len(table), np.inf), level)
            limits, names = np.concatenate([own, limits]), [*table.index, *names]
        found = pd.DataFrame(limits, index=names, columns=["lower", "upper"])
        if not is_correlated(fit):
            return found
        from jaxglmm.fitting.residual_parameters import table

        return pd.concat([found, table(fit, level)[["lower", "upper"]]])
    if method == "profile":
        from jaxglmm.postestimation.profile.profile import profile

        return profile(fit).intervals(level)
    _arguments.choice("kind", kind, KINDS)
    from jaxglmm.postestimation.collection.tables import limits

    return limits(drawn_and_fitted(fit, n, seed), level, kind)


def drawn_and_fitted(fit: FittedModel, n: int, seed) -> FittedModels:
    """Parametric bootstrap of a fit of any kind."""
    from jaxglmm.postestimation.bootstrap import bootstrap

    return bootstrap(fit, n, seed)
