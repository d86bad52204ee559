"""Confidence intervals: Wald for fixed effects, profile and bootstrap for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coefficients import t_quantile

if TYPE_CHECKING:
    from jaxglmm.results.fit import Fit

METHODS = ("wald", "profile", "bootstrap")
KINDS = ("percentile", "basic")  # of bootstrap intervals


def wald(beta, se, df, level: float) -> np.ndarray:
    """estimate -/+ t quantile times standard error, (p, 2)."""
    half = t_quantile(level, df) * se
    return np.column_stack([beta - half, beta + half])


def confint(
    fit: Fit, level: float, method: str, n: int, seed, kind: str
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
        return pd.DataFrame(limits, index=names, columns=["lower", "upper"])
    if method == "profile":
        return fit.profile().intervals(level)
    _arguments.choice("kind", kind, KINDS)
    return fit.bootstrap(n, seed).confint(level, method=kind)
