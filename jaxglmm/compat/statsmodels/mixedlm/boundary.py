"""What a fit warns of: no convergence, or an optimum on the boundary."""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import ConvergenceWarning, SingularFitWarning
from jaxglmm.compat.statsmodels.mixedlm.coordinates import column_sizes
from jaxglmm.compat.statsmodels.mixedlm.fit import CovarianceFound
from jaxglmm.compat.statsmodels.mixedlm.params import root
from jaxglmm.compat.statsmodels.mixedlm.state import FitState
from jaxglmm.formula.notices import warn as warn_user

ZERO = 1e-4  # relative standard deviation, of a column of unit size, that is zero


class BoundaryWarning(SingularFitWarning, ConvergenceWarning):
    """An optimum at zero variance or perfect correlation.

    statsmodels warns twice of it; filters on either of its categories see this one.
    """


def warn(results: FitState, found: CovarianceFound) -> None:
    """One warning a fit, with numbers and a remedy."""
    if not found.converged:
        text = found.message.replace("max_iter", "maxiter")
        warn_user(f"Not converged: {text}.", ConvergenceWarning)
        return
    facts = singular_facts(results)
    if facts:
        warn_user(
            f"The random effects covariance matrix is singular: {'; '.join(facts)}. "
            "The MLE is on the boundary of the parameter space, since the data do not "
            "support all of the random effects: drop one, hold covariances at zero "
            "with free=, or keep the model as it is: the estimates are the right "
            "optimum.",
            BoundaryWarning,
        )


def singular_facts(results: FitState) -> list[str]:
    """Zero variances and perfect correlations that were estimated, in words."""
    model, params = results.model, results.params_object
    size = column_sizes(model._evaluator)
    held = {n for n, h in zip(results._names, results.is_held, strict=True) if h}
    facts = []
    names = model.data.exog_re_names
    k = model.k_re
    covariance = params.cov_re * np.outer(size[:k], size[:k])
    sd = np.sqrt(np.diagonal(covariance))
    for i, name in enumerate(names):
        full = name if name.endswith(" Var") and k == 1 else f"{name} Var"
        if sd[i] < ZERO and full not in held:
            facts.append(f"{full} is estimated as 0")
    for i in range(k):
        for j in range(i):
            if min(sd[i], sd[j]) >= ZERO:
                r = covariance[i, j] / (sd[i] * sd[j])
                if abs(r) > 1 - 1e-6:
                    facts.append(
                        f"the correlation of {names[j]} and {names[i]} is estimated as "
                        f"{np.sign(r):+.0f}"
                    )
    if k > 2 and not facts:
        diagonal = np.diagonal(root(covariance))
        if diagonal.min() < ZERO:
            rank = int((diagonal >= ZERO).sum())
            facts.append(f"the {k} by {k} covariance matrix has rank {rank}")
    for c, (component, variance) in enumerate(
        zip(model._vc, params.vcomp, strict=True)
    ):
        full = f"{component.name} Var"
        if np.sqrt(variance) * size[k + c] < ZERO and full not in held:
            facts.append(f"{full} is estimated as 0")
    return facts
