"""The profile of a fit: curves of the parameters that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.postestimation.profile.curves import Profile
from jaxglmm.runtime.precision import double_precision

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel


@double_precision
def profile(
    fit: FittedModel,
    which: str | Sequence[str] | None = None,
) -> Profile:
    """Profile the likelihood of the parameters of a fit.

    Args:
        fit: by ML or REML; a REML fit is profiled by the ML deviance, as lme4 does.
        which: names as in the table of ``confint(method="profile")``, ``"theta"`` for
            variances and correlations, ``"beta"`` for fixed effects; None for all.

    Raises:
        NotApplicableError: a name that is not a parameter, a model without profiles.
    """
    residual = fit.design.residual
    np.asarray(fit.design.y)  # refused here where rows were read in batches
    if fit.design.fixed:
        raise NotApplicableError(
            "profile: models with held parameters have no profile likelihoods. "
            "fit.confint() has Wald limits, and fit.confint(method='bootstrap') "
            "simulated ones"
        )
    if residual is not None:
        from jaxglmm.postestimation.profile.residual import curves
    elif fit.is_linear:
        from jaxglmm.postestimation.profile.linear import curves
    else:
        from jaxglmm.postestimation.profile.generalised import curves
    made = {curve.name: curve for curve in curves(fit)}
    return Profile([made[name] for name in _chosen(fit, which, list(made))])


def _chosen(
    fit: FittedModel, which: str | Sequence[str] | None, names: list[str]
) -> list[str]:
    if which is None:
        return names
    fixed = set(fit.design.x_names)
    sets = {
        "theta": [n for n in names if n not in fixed],
        "beta": [n for n in names if n in fixed],
    }
    wanted = _arguments.names("which", which, meaning="a parameter's name")
    out = [name for w in wanted for name in sets.get(w, [w])]
    unknown = [name for name in out if name not in names]
    if unknown:
        raise NotApplicableError(
            f"profile: there is no parameter {unknown[0]!r}; there are "
            f"{', '.join(names)}"
        )
    return out
