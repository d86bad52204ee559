"""The log-likelihood that a table shows beside estimates which did not maximise it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxglmm.fitting import generalised as generalised_engine
from jaxglmm.fitting.linear import internal_lambdas
from jaxglmm.formula import design_from_arrays
from jaxglmm.integrate.base import Laplace
from jaxglmm.integrate.laplace import log_marginal
from jaxglmm.integrate.working_model import mode_at
from jaxglmm.model.families import AbstractFamily
from jaxglmm.runtime.precision import double_precision

_log_marginal = jax.jit(log_marginal)


@double_precision
def laplace_at(
    model: dict[str, Any],
    family: AbstractFamily,
    beta: np.ndarray,
    sds: np.ndarray,
    phi: np.ndarray,
) -> float:
    """Laplace's log marginal likelihood at beta, standard deviations and phi.

    Args:
        model: arguments of ``jg.glmm`` in its array form, one factor, independent
            effects.
        family: of the response.
        beta: (p,) coefficients.
        sds: (q,) standard deviations of the random effects.
        phi: (r,) dispersion parameters, unconstrained.
    """
    arguments = dict(model)
    y, X = arguments.pop("formula"), arguments.pop("data")
    groups = arguments.pop("groups")
    design = design_from_arrays(
        y, X, groups, **arguments, family_kind=family.family_kind
    )
    engine = generalised_engine.build(design, family, Laplace())
    theta = internal_lambdas(engine.factors, [np.diag(sds)])
    psi = np.concatenate([engine.R @ beta, theta, phi])
    start = mode_at(engine.base, psi)
    return float(_log_marginal(engine.base, psi, start))
