"""Residuals with one term of the fixed effects put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.kinds import is_generalised
from jaxglmm.formula.reduced import INTERCEPT, fixed_terms

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel


def partial_residuals(fit: FittedModel) -> pd.DataFrame:
    """See ``Fit.partial_residuals``."""
    design = fit.design
    categories = is_generalised(fit) and fit.family.family_kind in (
        "ordinal",
        "nominal",
    )
    if design.parts or categories:
        raise NotApplicableError(
            "partial residuals are of one linear predictor and a numeric response; "
            "look at fit.simulated_residuals().quantiles(by) for the shape of a term"
        )
    terms = fixed_terms(design)
    if not terms:
        raise NotApplicableError("the fixed effects have no term but the intercept")
    own = fit.resid("working" if is_generalised(fit) else "response")
    centred = INTERCEPT in design.x_names
    out = {}
    for term in terms:
        at = list(term.columns)
        share = design.X[:, at] @ fit.coefficients[at]
        out[term.name] = own + share - (share.mean() if centred else 0.0)
    return pd.DataFrame(
        out, index=np.asarray(design.index) if design.index is not None else None
    )
