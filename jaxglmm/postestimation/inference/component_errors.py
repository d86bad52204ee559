"""Standard errors of standard deviations, correlations and dispersion parameters.

By the delta method from the covariance of theta and phi: with T the change of
coordinates of a factor (``structure.factors``), Sigma = T^-1 Lambda Lambda' T^-T, and

    d Sigma / d Lambda_ij = a b' + b a',  a = T^-1 e_i,  b = T^-1 Lambda e_j.

On the boundary, where a standard deviation is zero or a correlation plus or minus one,
there is no such error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxglmm.fitting.components import VarianceParameter, parameters
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.fitting.kinds import is_correlated, is_dispersed, is_generalised
from jaxglmm.fitting.linear import lambdas
from jaxglmm.model import covariances
from jaxglmm.model.covariances.base import jacobian as jacobian_of
from jaxglmm.runtime.host import on_host

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_correlated import FittedCorrelated
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.structure.factors import Factor

NEAR_ONE = 1 - 1e-8


def variance_parameters(
    fit: FittedModel,
) -> tuple[tuple[VarianceParameter, ...], np.ndarray | None]:
    """Standard deviations, correlations, dispersions, and their standard errors.

    None for the errors of a linear model, whose intervals are profiles.
    """
    if is_correlated(fit):
        return _of_residuals(fit)
    if not is_generalised(fit):
        return parameters(fit.design, fit.estimates), None
    group = "Thresholds" if fit.family.family_kind == "ordinal" else "Dispersion"
    dispersion = [
        VarianceParameter("dispersion", group, (k,), v)
        for k, v in fit.dispersions.items()
    ]
    pars = (*parameters(fit.design, fit.estimates, residual=False), *dispersion)
    if not pars:
        return pars, np.zeros(0)
    covariance = fit.parameter_covariance
    J = jacobian(fit)
    with np.errstate(invalid="ignore"):
        error = np.sqrt(np.einsum("ij,jk,ik->i", J, covariance, J))
    held = np.array([p.label in fit.design.fixed for p in pars])
    return pars, np.where((error > 0) & ~held, error, np.nan)


def _of_residuals(
    fit: FittedCorrelated,
) -> tuple[tuple[VarianceParameter, ...], np.ndarray]:
    """Of random effects, without errors, and of the residuals."""
    effects = parameters(fit.design, fit.estimates, residual=False)
    if is_dispersed(fit):  # whose coefficients stand among the others
        return effects, np.full(len(effects), np.nan)
    table = fit.residual_parameters
    own = [
        VarianceParameter("dispersion", "Residual", (str(name),), float(value))
        for name, value in table["estimate"].items()
    ]
    errors = [np.full(len(effects), np.nan), table["std_error"].to_numpy()]
    return (*effects, *own), np.concatenate(errors)


def jacobian(fit: FittedGeneralised) -> np.ndarray:
    """Derivatives of the parameters in psi (beta, theta, phi), as in the table."""
    engine = fit.engine
    psi = fit.internal()[0]
    p, theta = engine.base.p, engine.base.split(psi)[1]
    m = len(theta)
    rows: dict[int, np.ndarray] = {}
    start = 0
    for factor, lam in zip(engine.factors, lambdas(engine.base, theta), strict=True):
        own = theta[start : start + factor.covariance.m]
        B = factor.T_inverse @ lam
        slices = np.zeros((m, factor.q, factor.q))
        slices[start : start + len(own)] = _moved(factor, B, own)
        at = 0
        for term, begin, end in factor.spans:
            kind = covariances.of(fit.design.terms[term])
            mine = own[at : at + kind.m]
            J = kind.natural_jacobian(mine, np.diagonal(factor.T)[begin:end])
            if J is None:
                cov = (B @ B.T)[begin:end, begin:end]
                rows[term] = _of_one_term(
                    cov, slices[:, begin:end, begin:end], kind.pairs
                )
            else:
                rows[term] = np.zeros((len(J), m))
                rows[term][:, start + at : start + at + kind.m] = J
            at += kind.m
        start += len(own)
    named = np.concatenate([np.zeros((0, m)), *(rows[k] for k in sorted(rows))])
    natural = fit.family.natural_jacobian(engine.location.phi(psi))
    out = np.zeros((len(named) + len(natural), len(psi)))
    out[: len(named), p : p + m] = named
    out[len(named) :] = natural @ engine.location.jacobian
    return out


def _moved(factor: Factor, B: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """(m, q, q) d Sigma / d theta of one factor in the user's coordinates."""
    A, own = factor.T_inverse, factor.covariance
    by_entry = np.zeros((len(own.entries), factor.q, factor.q))
    for k, (i, j) in enumerate(own.entries):
        one = np.outer(A[:, i], B[:, j])
        by_entry[k] = one + one.T
    with on_host():
        J = jacobian_of(theta, (own,))
    return by_entry if J is None else np.tensordot(J.T, by_entry, axes=1)


def _of_one_term(cov: np.ndarray, slices: np.ndarray, pairs) -> np.ndarray:
    """Rows for sds, then correlations, from the derivatives (m, q, q) of cov."""
    sd = np.sqrt(np.diagonal(cov))
    q = len(sd)
    with np.errstate(divide="ignore", invalid="ignore"):
        d_sd = np.array([slices[:, k, k] / (2 * sd[k]) for k in range(q)])
        d_sd = np.where(sd[:, None] > 0, d_sd, np.nan)
        rows = list(d_sd)
        for i, j in pairs:
            r = cov[i, j] / (sd[i] * sd[j])
            relative = d_sd[i] / sd[i] + d_sd[j] / sd[j]
            row = slices[:, i, j] / (sd[i] * sd[j]) - r * relative
            rows.append(np.where(abs(r) < NEAR_ONE, row, np.nan))
    return np.array(rows).reshape(-1, slices.shape[0])
