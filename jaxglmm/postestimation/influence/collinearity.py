"""How far predictors repeat each other: variance inflation and condition numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.formula.reduced import INTERCEPT, fixed_terms


def vif(fit: Any, by: str = "term") -> pd.DataFrame:
    """See ``Fit.vif``."""
    by = _arguments.choice("by", by, ("term", "coefficient"))
    names = list(fit.design.x_names)
    free = [j for j, name in enumerate(names) if not name.endswith(INTERCEPT)]
    if len(free) < 2:
        raise NotApplicableError(
            "variance inflation is by other predictors; the model has "
            f"{len(free)} beside the intercept"
        )
    V = np.asarray(fit.coefficient_covariance())[np.ix_(free, free)]
    sd = np.sqrt(np.diagonal(V))
    if not (np.isfinite(V).all() and (sd > 0).all()):
        raise NotApplicableError(
            "the covariance of the coefficients is not known (did the fit converge?)"
        )
    R = V / np.outer(sd, sd)
    if by == "coefficient":
        each = [[free.index(j)] for j in free]
        labels = [names[j] for j in free]
    else:
        terms = [t for t in fixed_terms(fit.design)]
        inside = [[free.index(j) for j in t.columns if j in free] for t in terms]
        labels = [t.name for t, own in zip(terms, inside, strict=True) if own]
        each = [own for own in inside if own]
    whole = np.linalg.slogdet(R)[1]
    rows = []
    for own in each:
        rest = [j for j in range(len(R)) if j not in own]
        log = np.linalg.slogdet(R[np.ix_(own, own)])[1] - whole
        log += np.linalg.slogdet(R[np.ix_(rest, rest)])[1] if rest else 0.0
        k = len(own)
        rows.append((k, np.exp(log), np.exp(log / (2 * k))))
    return pd.DataFrame(rows, index=labels, columns=["df", "vif", "inflation"])


def condition_number(fit: Any) -> float:
    """Of X with columns of length one, the intercept's included (Belsley et al. 1980).

    Above 30 is often called harmful.
    """
    X = fit.design.X[fit.design.counted]
    if not X.shape[1]:
        raise NotApplicableError("there are no fixed effects")
    size = np.linalg.norm(X, axis=0)
    s = np.linalg.svd(X / np.where(size > 0, size, 1.0), compute_uv=False)
    return float(s[0] / s[-1]) if s[-1] > 0 else np.inf
